locals {
  bucket_arn     = var.artifacts_bucket.arn
  log_group_arn  = "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:/aws/sagemaker/Endpoints/${var.name}"
  alarm_arns     = [for name in sort(var.rollback_alarm_names) : "arn:${local.partition}:cloudwatch:${local.region}:${local.account_id}:alarm:${name}"]
  image_parts    = try(regex(local.image_pattern, local.image), ["", "", ""])
  repository_arn = "arn:${local.partition}:ecr:${local.image_parts[1]}:${local.image_parts[0]}:repository/${local.image_parts[2]}"

  captures         = var.data_capture_percent > 0
  async            = var.kind == "async"
  async_topic_arns = compact([var.async.success_topic_arn, var.async.error_topic_arn])
  written_prefixes = concat(local.captures ? ["capture"] : [], local.async ? ["async/output", "async/failures"] : [])
}

resource "aws_iam_role" "endpoint" {
  name                 = "${var.prefix}-endpoint"
  description          = "What the endpoint ${var.name} may do."
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "SageMakerEndpoints"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "sagemaker.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account_id }
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:sagemaker:${local.region}:${local.account_id}:*" }
      }
    }]
  })
}

# What one model needs: its archive and its image. The old model's policy goes only after the endpoint has left that model
# (as long as it serves, auto-scaling starts instances that read both again), so it also outlives an update that fails.
resource "aws_iam_role_policy" "model" {
  count = local.deployed ? 1 : 0

  name = local.model_name
  role = aws_iam_role.endpoint.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadModel"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = "${local.bucket_arn}/${local.data_key}"
      },
      {
        Sid      = "PullImage"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = local.repository_arn
      },
    ]
  })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role_policy" "endpoint" {
  name = "endpoint"
  role = aws_iam_role.endpoint.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "UseKey"
          Effect   = "Allow"
          Action   = concat(["kms:Decrypt", "kms:DescribeKey"], length(local.written_prefixes) > 0 ? ["kms:GenerateDataKey"] : [])
          Resource = var.kms_key_arn
        },
        {
          # A token is for the whole registry service and knows no resources; what it opens is in the model's policy.
          Sid      = "LogInToRegistry"
          Effect   = "Allow"
          Action   = "ecr:GetAuthorizationToken"
          Resource = "*"
        },
        {
          Sid      = "WriteLogs"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
          Resource = [local.log_group_arn, "${local.log_group_arn}:*"]
        },
        {
          # PutMetricData knows no resources; the namespace is what can be limited.
          Sid       = "PutMetrics"
          Effect    = "Allow"
          Action    = "cloudwatch:PutMetricData"
          Resource  = "*"
          Condition = { StringEquals = { "cloudwatch:namespace" = ["/aws/sagemaker/Endpoints", "AWS/SageMaker"] } }
        },
      ],
      [for statement in [
        {
          # SageMaker looks at the alarms in the role's name; one that it may not see does not take an update back.
          Sid      = "WatchAlarms"
          Effect   = "Allow"
          Action   = "cloudwatch:DescribeAlarms"
          Resource = local.alarm_arns
        },
      ] : statement if local.on_instances && length(var.rollback_alarm_names) > 0],
      [for statement in [
        {
          # How SageMaker lets EBS encrypt the volumes; the condition keeps the right from being used otherwise.
          Sid       = "EncryptVolumes"
          Effect    = "Allow"
          Action    = "kms:CreateGrant"
          Resource  = var.kms_key_arn
          Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
        },
      ] : statement if local.on_instances && !local.has_own_disks],
      [for statement in [
        {
          Sid      = "WriteResults"
          Effect   = "Allow"
          Action   = ["s3:AbortMultipartUpload", "s3:PutObject"]
          Resource = [for prefix in local.written_prefixes : "${local.bucket_arn}/${prefix}/*"]
        },
      ] : statement if length(local.written_prefixes) > 0],
      [for statement in [
        {
          Sid      = "ReadRequests"
          Effect   = "Allow"
          Action   = "s3:GetObject"
          Resource = "${local.bucket_arn}/async/input/*"
        },
        {
          # With it a request whose input is missing fails as "not found"; without, as "access denied".
          Sid       = "ListRequests"
          Effect    = "Allow"
          Action    = "s3:ListBucket"
          Resource  = local.bucket_arn
          Condition = { StringLike = { "s3:prefix" = "async/input/*" } }
        },
      ] : statement if local.async],
      [for statement in [
        {
          Sid      = "Notify"
          Effect   = "Allow"
          Action   = "sns:Publish"
          Resource = local.async_topic_arns
        },
      ] : statement if local.async && length(local.async_topic_arns) > 0],
      [for statement in local.network_statements : statement if local.vpc != null],
    )
  })
}

locals {
  ec2_arn     = "arn:${local.partition}:ec2:${local.region}:${local.account_id}"
  subnet_arns = [for id in try(local.vpc.subnet_ids, []) : "${local.ec2_arn}:subnet/${id}"]

  # SageMaker puts an interface of each instance into the network, in the role's name.
  network_statements = [
    {
      Sid    = "MakeNetworkInterfaces"
      Effect = "Allow"
      Action = "ec2:CreateNetworkInterface"
      Resource = concat(
        ["${local.ec2_arn}:network-interface/*"],
        local.subnet_arns,
        [for id in try(local.vpc.security_group_ids, []) : "${local.ec2_arn}:security-group/${id}"],
      )
    },
    {
      # Interfaces get their id only when they are made: those in our subnets are the closest that can be named.
      Sid    = "ManageNetworkInterfaces"
      Effect = "Allow"
      Action = [
        "ec2:CreateNetworkInterfacePermission",
        "ec2:DeleteNetworkInterface",
        "ec2:DeleteNetworkInterfacePermission",
      ]
      Resource  = "${local.ec2_arn}:network-interface/*"
      Condition = { ArnEquals = { "ec2:Subnet" = local.subnet_arns } }
    },
    {
      # EC2's Describe actions know no resources.
      Sid    = "DescribeNetwork"
      Effect = "Allow"
      Action = [
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcEndpoints",
        "ec2:DescribeVpcs",
      ]
      Resource = "*"
    },
  ]
}
