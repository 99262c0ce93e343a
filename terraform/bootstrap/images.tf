# For whoever runs `make image`, a person or a role of their own: it uploads the sources, starts a build and follows it. Not
# for the roles above: whoever starts a build may replace its commands, and so do whatever the build's role may, which is to
# read sources and to push to the two repositories of images.

locals {
  build_images = [
    {
      Sid      = "UploadSources"
      Action   = "s3:PutObject"
      Resource = "${local.buckets}/image/*"
    },
    {
      Sid       = "EncryptSources"
      Action    = "kms:GenerateDataKey"
      Resource  = local.keys
      Condition = { StringEquals = merge(local.is_project, { "kms:ViaService" = local.via["s3"] }) }
    },
    {
      Sid      = "Build"
      Action   = ["codebuild:BatchGetBuilds", "codebuild:StartBuild"]
      Resource = "${local.arn.codebuild}:project/${var.project}-*-image"
    },
    {
      Sid      = "ReadLog"
      Action   = "logs:GetLogEvents"
      Resource = "${local.arn.logs}:log-group:/aws/codebuild/${var.project}-*-image:log-stream:*"
    },
    {
      Sid      = "FindImages"
      Action   = "ecr:DescribeImages"
      Resource = [for name in ["serving", "training"] : "${local.arn.ecr}:repository/${var.project}-*-${name}"]
    },
    # The names of all these are in the environment's state.
    { Sid = "ListStates", Action = "s3:ListBucket", Resource = local.state_arn },
    { Sid = "ReadStates", Action = "s3:GetObject", Resource = "${local.state_arn}/*.tfstate" },
    {
      Sid       = "DecryptStates"
      Action    = "kms:Decrypt"
      Resource  = aws_kms_key.state.arn
      Condition = { StringEquals = { "kms:ViaService" = local.via["s3"] } }
    },
  ]
}

resource "aws_iam_policy" "build_images" {
  name        = "${var.project}-build-images"
  path        = local.path
  description = "For whoever runs `make image` of ${var.project}."

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in local.build_images : merge({ Effect = "Allow" }, statement)]
  })
}
