# The way to AWS. Every endpoint admits principals of this account only: with somebody else's credentials, brought along
# to carry data off, nothing in the network reaches AWS. What a principal may do is decided by its role; the endpoints
# hold the calls that anything in here has a reason to make.

locals {
  by_this_account = { StringEquals = { "aws:PrincipalAccount" = local.account_id } }

  service_actions = {
    "ec2" = ["ec2:Describe*", "ec2:StopInstances"]
    "ec2messages" = [
      "ec2messages:AcknowledgeMessage",
      "ec2messages:DeleteMessage",
      "ec2messages:FailMessage",
      "ec2messages:GetEndpoint",
      "ec2messages:GetMessages",
      "ec2messages:SendReply",
    ]
    "ecr.api" = [
      "ecr:BatchCheckLayerAvailability",
      "ecr:BatchGetImage",
      "ecr:Describe*",
      "ecr:GetAuthorizationToken",
      "ecr:GetDownloadUrlForLayer",
      "ecr:ListImages",
    ]
    "ecr.dkr" = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    "kms"     = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
    "logs" = [
      "logs:CreateLogGroup",
      "logs:CreateLogStream",
      "logs:Describe*",
      "logs:FilterLogEvents",
      "logs:GetLogEvents",
      "logs:PutLogEvents",
      "logs:PutRetentionPolicy",
    ]
    "monitoring" = [
      "cloudwatch:DescribeAlarms",
      "cloudwatch:GetMetricData",
      "cloudwatch:GetMetricStatistics",
      "cloudwatch:ListMetrics",
      "cloudwatch:PutMetricData",
    ]
    "sagemaker.api" = [
      "sagemaker:AddTags",
      "sagemaker:Create*Job",
      "sagemaker:CreateApp",
      "sagemaker:CreateModelPackage",
      "sagemaker:CreateSpace",
      "sagemaker:DeleteApp",
      "sagemaker:DeleteSpace",
      "sagemaker:Describe*",
      "sagemaker:List*",
      "sagemaker:Search",
      "sagemaker:Stop*Job",
      "sagemaker:StopNotebookInstance",
      "sagemaker:UpdateModelPackage",
      "sagemaker:UpdateSpace",
    ]
    "sagemaker.featurestore-runtime" = [
      "sagemaker:BatchGetRecord",
      "sagemaker:DeleteRecord",
      "sagemaker:GetRecord",
      "sagemaker:PutRecord",
    ]
    "sagemaker.runtime" = ["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointAsync"]
    "ssm"               = ["ssm:GetParameter", "ssm:GetParameters", "ssm:UpdateInstanceInformation"]
    "ssmmessages" = [
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    "sts" = ["sts:GetCallerIdentity"]
  }
}

data "aws_vpc_endpoint_service" "interface" {
  for_each     = var.interface_services
  service      = each.key
  service_type = "Interface"
}

resource "aws_vpc_endpoint" "interface" {
  for_each            = data.aws_vpc_endpoint_service.interface
  vpc_id              = aws_vpc.this.id
  service_name        = each.value.service_name
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = aws_subnet.private[*].id
  security_group_ids  = [aws_security_group.endpoints.id]
  tags                = merge(var.tags, { Name = "${var.prefix}-${each.key}" })

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "ThisAccount"
      Effect    = "Allow"
      Principal = "*"
      Action    = local.service_actions[each.key]
      # In an endpoint's policy: whatever the role may do it to. Most of these calls name resources that jobs only make.
      Resource  = "*"
      Condition = local.by_this_account
    }]
  })
}

data "aws_vpc_endpoint_service" "s3" {
  service      = "s3"
  service_type = "Gateway"
}

# A gateway costs nothing, and pictures come in gigabytes: never through an interface.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  service_name      = data.aws_vpc_endpoint_service.s3.service_name
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.private.id]
  tags              = merge(var.tags, { Name = "${var.prefix}-s3" })

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "ListBuckets"
        Effect    = "Allow"
        Principal = "*"
        Action = [
          "s3:GetBucketAcl",
          "s3:GetBucketLocation",
          "s3:GetBucketVersioning",
          "s3:ListBucket",
          "s3:ListBucketMultipartUploads",
          "s3:ListBucketVersions",
        ]
        Resource  = sort(var.bucket_arns)
        Condition = local.by_this_account
      },
      {
        Sid       = "ReadAndWriteObjects"
        Effect    = "Allow"
        Principal = "*"
        Action = [
          "s3:AbortMultipartUpload",
          "s3:DeleteObject",
          "s3:GetObject",
          "s3:GetObjectAttributes",
          "s3:GetObjectTagging",
          "s3:GetObjectVersion",
          "s3:ListMultipartUploadParts",
          "s3:PutObject",
          "s3:PutObjectAcl",
          "s3:PutObjectTagging",
        ]
        Resource  = [for arn in sort(var.bucket_arns) : "${arn}/*"]
        Condition = local.by_this_account
      },
      {
        # AWS's own: image layers, behind links that ECR signs, and the packages of Amazon Linux, fetched without
        # signing. In neither case is the principal one of this account. Reading from them carries nothing out.
        Sid       = "ReadImageLayersAndPackages"
        Effect    = "Allow"
        Principal = "*"
        Action    = "s3:GetObject"
        Resource = [
          "arn:${local.partition}:s3:::prod-${local.region}-starport-layer-bucket/*",
          "arn:${local.partition}:s3:::al2023-repos-${local.region}-de612dc2/*",
        ]
      },
    ]
  })
}
