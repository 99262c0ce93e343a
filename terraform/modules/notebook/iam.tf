resource "aws_iam_role" "notebook" {
  name                 = local.name
  description          = "What people in ${var.prefix}'s notebook may do: start jobs, follow them, ask the endpoint, stop the notebook."
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "SageMakerNotebook"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "sagemaker.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account_id }
        # AWS documents the account for all of SageMaker, but not that a notebook instance sends its ARN: where it does, it
        # must be this one. Studio assumes the role for its domain, spaces and apps, whose ids only exist afterwards.
        ArnLikeIfExists = { "aws:SourceArn" = local.studio ? "${local.sagemaker_arn}:*" : "${local.sagemaker_arn}:notebook-instance/${local.name}" }
      }
    }]
  })
}

# Everything about jobs, pictures and results.
resource "aws_iam_role_policy_attachment" "job_launcher" {
  role       = aws_iam_role.notebook.name
  policy_arn = var.job_launcher_policy_arn
}

locals {
  # Shared by all notebooks of the account, like the groups of jobs: SageMaker makes them, and no Terraform root owns them.
  log_group = "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:/aws/sagemaker/${local.studio ? "studio" : "NotebookInstances"}"
}

resource "aws_iam_role_policy" "notebook" {
  name = "notebook"
  role = aws_iam_role.notebook.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "ReadBundle"
          Effect   = "Allow"
          Action   = "s3:GetObject"
          Resource = "${var.artifacts_bucket.arn}/${aws_s3_object.bundle.key}"
        },
        {
          # Names of buckets, roles and endpoint, which the `dogbreed` command looks up.
          Sid      = "ReadDeployment"
          Effect   = "Allow"
          Action   = "ssm:GetParameter"
          Resource = "arn:${local.partition}:ssm:${local.region}:${local.account_id}:parameter/${var.prefix}/deployment"
        },
        {
          # Trying out what was deployed.
          Sid      = "AskEndpoint"
          Effect   = "Allow"
          Action   = "sagemaker:InvokeEndpoint"
          Resource = var.endpoint_arn
        },
        {
          Sid      = "UseKey"
          Effect   = "Allow"
          Action   = ["kms:Decrypt", "kms:DescribeKey"]
          Resource = var.kms_key_arn
        },
        {
          Sid      = "MakeLogGroup"
          Effect   = "Allow"
          Action   = ["logs:CreateLogGroup", "logs:DescribeLogStreams"]
          Resource = [local.log_group, "${local.log_group}:*"]
        },
        {
          Sid      = "WriteLogs"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = "${local.log_group}:log-stream:${local.studio ? "*" : "${local.name}/*"}"
        },
      ],
      [for statement in [
        {
          Sid      = "StopItself"
          Effect   = "Allow"
          Action   = ["sagemaker:DescribeNotebookInstance", "sagemaker:StopNotebookInstance"]
          Resource = "${local.sagemaker_arn}:notebook-instance/${local.name}"
        },
      ] : statement if !local.studio],
    )
  })
}
