resource "aws_ecr_repository" "image" {
  name                 = var.prefix
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
  repository = aws_ecr_repository.image.name

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

resource "aws_s3_object" "image_source" {
  bucket             = var.artifacts_bucket.name
  key                = "image/image.zip"
  source             = var.image_source_path
  source_hash        = local.image_sha256
  content_type       = "application/zip"
  checksum_algorithm = "SHA256"
  kms_key_id         = var.kms_key_arn
  tags               = var.tags
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

# Started by hand or by CI (`aws codebuild start-build --project-name …`): a plan that also ran builds would neither be
# free nor repeatable. Outside the network, which has no way out: the build needs the base image and PyPI.
resource "aws_codebuild_project" "image" {
  #checkov:skip=CKV_AWS_316:Building an image needs the Docker daemon, which CodeBuild only starts in privileged mode; the source comes from our own bucket alone
  name                   = local.build_project_name
  description            = "Builds the custom image for jobs and pushes it, tagged with the hash of its sources."
  service_role           = aws_iam_role.image_build.arn
  encryption_key         = var.kms_key_arn
  build_timeout          = 60
  queued_timeout         = 60
  concurrent_build_limit = 1
  tags                   = var.tags

  # The version whose hash is the tag, also when a newer one lies there by the time of the build.
  source_version = aws_s3_object.image_source.version_id

  source {
    type      = "S3"
    location  = "${aws_s3_object.image_source.bucket}/${aws_s3_object.image_source.key}"
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
      name  = "REPOSITORY_URL"
      value = aws_ecr_repository.image.repository_url
    }

    environment_variable {
      name  = "REPOSITORY_NAME"
      value = aws_ecr_repository.image.name
    }

    environment_variable {
      name  = "IMAGE_TAG"
      value = local.image_tag
    }
  }

  logs_config {
    cloudwatch_logs {
      group_name = aws_cloudwatch_log_group.image_build.name
    }
  }

  depends_on = [aws_iam_role_policy.image_build]
}
