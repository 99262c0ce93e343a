resource "aws_iam_role" "trainer" {
  name                 = local.name
  description          = "What ${var.prefix}'s training host may do: read bundle and pictures, write results and logs, be reached by a session."
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Host"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
      # IfExists, because AWS does not document that EC2 sends the key for instance profiles; without it a host would
      # have no credentials. A profile can only be given to hosts of its own account anyway.
      Condition = { StringEqualsIfExists = { "aws:SourceAccount" = local.account_id } }
    }]
  })
}

resource "aws_iam_instance_profile" "trainer" {
  name = local.name
  role = aws_iam_role.trainer.name
  tags = var.tags
}

resource "aws_iam_role_policy" "trainer" {
  name = "trainer"
  role = aws_iam_role.trainer.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadBundle"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = "${var.artifacts_bucket.arn}/${var.bundle.key}"
      },
      {
        Sid      = "ReadPictures"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = ["${var.data_bucket.arn}/${local.data_key}", "${var.data_bucket.arn}/${local.data_key}/*"]
      },
      {
        Sid       = "ListPictures"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = var.data_bucket.arn
        Condition = { StringLike = { "s3:prefix" = "${local.data_key}/*" } }
      },
      {
        Sid    = "KeepResultsAndCheckpoints"
        Effect = "Allow"
        Action = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
        Resource = [
          "${var.artifacts_bucket.arn}/${local.output_key}/*",
          "${var.artifacts_bucket.arn}/${local.checkpoint_key}/*",
        ]
      },
      {
        # Also what makes S3 answer 404 instead of 403 for what is not there yet.
        Sid       = "ListResultsAndCheckpoints"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = var.artifacts_bucket.arn
        Condition = { StringLike = { "s3:prefix" = ["${local.output_key}/*", "${local.checkpoint_key}/*"] } }
      },
      {
        Sid       = "UseKeyThroughS3"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = var.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.${data.aws_partition.current.dns_suffix}" } }
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.trainer.arn}:*"
      },
      {
        # Sessions instead of SSH. Not AmazonSSMManagedInstanceCore: it may also read every parameter of the account.
        Sid      = "OfferSessions"
        Effect   = "Allow"
        Action   = "ssm:UpdateInstanceInformation"
        Resource = "arn:${local.partition}:ec2:${local.region}:${local.account_id}:instance/*"
      },
      {
        # AWS has no resource-level permission for any action of ssmmessages.
        Sid    = "CarrySessions"
        Effect = "Allow"
        Action = [
          "ssmmessages:CreateControlChannel",
          "ssmmessages:CreateDataChannel",
          "ssmmessages:OpenControlChannel",
          "ssmmessages:OpenDataChannel",
        ]
        Resource = "*"
      },
    ]
  })
}

# Spot hosts are launched and started again by a role of AWS's own, which must be able to open the encrypted volume.
data "aws_iam_roles" "spot" {
  count = var.spot ? 1 : 0

  path_prefix = "/aws-service-role/spot.amazonaws.com/"
}

resource "aws_kms_grant" "spot" {
  count = var.spot ? 1 : 0

  name              = "${local.name}-spot"
  key_id            = var.kms_key_arn
  grantee_principal = one(data.aws_iam_roles.spot[0].arns)
  operations        = ["CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo"]

  lifecycle {
    precondition {
      condition     = length(data.aws_iam_roles.spot[0].arns) == 1
      error_message = "Spot hosts need AWS's role for them, once per account: run `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`, or set spot = false."
    }
  }
}
