locals {
  # serving: what endpoints run. training: for jobs that should not depend on AWS's container.
  image_names = toset(["serving", "training"])
}

resource "aws_ecr_repository" "image" {
  for_each = local.image_names

  name                 = "${var.prefix}-${each.key}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.delete_images_on_destroy
  tags                 = var.tags

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = var.kms_key_arn
  }

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "image" {
  for_each = aws_ecr_repository.image

  repository = each.value.name

  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Layers without a tag are left over from interrupted pushes."
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 1 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "Keep the newest ${var.image_retention_count}."
        selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.image_retention_count }
        action       = { type = "expire" }
      },
    ]
  })
}

# CodeBuild would make this group itself, without a key and for ever.
resource "aws_cloudwatch_log_group" "image_build" {
  name              = "/aws/codebuild/${local.build_project_name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

locals {
  build_project_name = "${var.prefix}-image"
}

# One project for both images: it is the same work, and `make image` (by hand or in CI) names image and sources when it
# starts a build. Were the sources uploaded here, the image of changed sources could only be built after the `apply` that
# wants to roll it out. Outside the network, which has no way out: the build needs the base image and PyPI.
resource "aws_codebuild_project" "image" {
  #checkov:skip=CKV_AWS_316:Building an image needs the Docker daemon, which CodeBuild only starts in privileged mode; the source comes from our own bucket alone
  name                   = local.build_project_name
  description            = "Builds an image and pushes it, tagged with the hash of its sources; `make image` starts it."
  service_role           = aws_iam_role.image_build.arn
  encryption_key         = var.kms_key_arn
  build_timeout          = 60
  queued_timeout         = 60
  concurrent_build_limit = 2
  tags                   = var.tags

  source {
    type      = "S3"
    location  = "${var.artifacts_bucket.name}/image/serving.zip" # each build is given its own
    buildspec = file("${path.module}/buildspec.yml")
  }

  artifacts {
    type = "NO_ARTIFACTS"
  }

  environment {
    type            = "LINUX_CONTAINER"
    image           = "aws/codebuild/amazonlinux-x86_64-standard:5.0"
    compute_type    = "BUILD_GENERAL1_MEDIUM" # 128 GB of disk: PyTorch with CUDA fills the 64 GB of the smallest
    privileged_mode = true

    environment_variable {
      name  = "IMAGE_URI"
      value = "none" # each build is given its own; an empty value is not allowed
    }
  }

  logs_config {
    cloudwatch_logs {
      group_name = aws_cloudwatch_log_group.image_build.name
    }
  }

  depends_on = [aws_iam_role_policy.image_build]
}
