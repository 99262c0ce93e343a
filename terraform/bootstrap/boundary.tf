# The most that any role of this project may do. It grants nothing: a role may do what its own policy and this both allow.
# Where a role's own policy names one resource, this names the project. No identity management, no network or bucket
# settings, no other project: a role that CI was tricked into making is not worth more than those there are.

locals {
  boundary_name = "${var.project}-boundary"
  boundary_arn  = "${local.iam_arn}:policy${local.path}${local.boundary_name}"
  external      = [for name in sort(var.external_bucket_names) : "arn:${local.partition}:s3:::${name}"]

  boundary = concat(
    [
      {
        Sid      = "Buckets"
        Action   = ["s3:GetBucketAcl", "s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:ListBucketVersions"]
        Resource = local.buckets
      },
      {
        Sid = "Objects"
        Action = [
          "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:GetObjectAttributes", "s3:GetObjectTagging", "s3:GetObjectVersion",
          "s3:ListMultipartUploadParts", "s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectTagging",
        ]
        Resource = "${local.buckets}/*"
      },
      {
        Sid = "Keys"
        Action = [
          "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom",
          "kms:ReEncryptTo", "kms:RetireGrant",
        ]
        Resource  = local.keys
        Condition = { StringEquals = local.is_project }
      },
      {
        Sid       = "GrantKeysToServices"
        Action    = "kms:CreateGrant"
        Resource  = local.keys
        Condition = { StringEquals = local.is_project, Bool = { "kms:GrantIsForAWSResource" = "true" } }
      },
      {
        # Apps and spaces of Studio carry AWS's ids, so this names the account. It changes no endpoint and no model.
        Sid = "Jobs"
        Action = [
          "sagemaker:AddTags", "sagemaker:Create*Job", "sagemaker:CreateApp", "sagemaker:CreateModelPackage", "sagemaker:CreatePresignedDomainUrl", "sagemaker:CreateSpace", "sagemaker:DeleteApp",
          "sagemaker:DeleteSpace", "sagemaker:Describe*", "sagemaker:List*", "sagemaker:Stop*Job", "sagemaker:StopNotebookInstance",
          "sagemaker:UpdateModelPackage", "sagemaker:UpdateSpace",
        ]
        Resource = "${local.arn.sagemaker}:*"
      },
      {
        Sid      = "EndpointAndFeatures"
        Action   = ["sagemaker:BatchGetRecord", "sagemaker:GetRecord", "sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointAsync", "sagemaker:PutRecord"]
        Resource = local.sagemaker
      },
      {
        Sid       = "PassRolesToSageMaker"
        Action    = "iam:PassRole"
        Resource  = "${local.iam_arn}:role/${var.project}-*"
        Condition = { StringEquals = { "iam:PassedToService" = "sagemaker.amazonaws.com" } }
      },
      {
        # SageMaker's groups are shared by all jobs of the account.
        Sid      = "Logs"
        Action   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:GetLogEvents", "logs:PutLogEvents"]
        Resource = concat(local.log_groups, ["${local.arn.logs}:log-group:/aws/sagemaker/*"])
      },
      {
        Sid      = "PullImages"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:DescribeImages", "ecr:GetDownloadUrlForLayer"]
        Resource = "arn:${local.partition}:ecr:${var.region}:*:repository/*"
      },
      {
        Sid      = "PushImages"
        Action   = ["ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"]
        Resource = "${local.arn.ecr}:repository/${var.project}-*"
      },
      {
        Sid      = "Messages"
        Action   = ["lambda:InvokeFunction", "sns:Publish", "sqs:SendMessage"]
        Resource = ["${local.arn.lambda}:function:${var.project}-*", "${local.arn.sns}:${var.project}-*", "${local.arn.sqs}:${var.project}-*"]
      },
      {
        Sid      = "Parameters"
        Action   = ["ssm:GetParameter", "ssm:GetParameters"]
        Resource = "${local.arn.ssm}:parameter/${var.project}-*"
      },
      {
        Sid      = "WatchAlarms"
        Action   = "cloudwatch:DescribeAlarms"
        Resource = "${local.cloudwatch_arn}:alarm:${var.project}-*"
      },
      {
        Sid      = "HostsReport"
        Action   = "ssm:UpdateInstanceInformation"
        Resource = "${local.arn.ec2}:instance/*"
      },
      {
        # Interfaces that SageMaker and Lambda put into the network in a role's name.
        Sid = "NetworkInterfaces"
        Action = [
          "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission", "ec2:DeleteNetworkInterface",
          "ec2:DeleteNetworkInterfacePermission", "ec2:UnassignPrivateIpAddresses",
        ]
        Resource = [for kind in ["network-interface", "security-group", "subnet"] : "${local.arn.ec2}:${kind}/*"]
      },
      {
        # None of these has resource-level permissions: lists of names, metrics, traces, a registry's token, sessions' channels.
        Sid = "NoResources"
        Action = [
          "cloudwatch:PutMetricData",
          "ec2:DescribeDhcpOptions",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeSecurityGroups",
          "ec2:DescribeSubnets",
          "ec2:DescribeVpcEndpoints",
          "ec2:DescribeVpcs",
          "ecr:GetAuthorizationToken",
          "logs:DescribeLogGroups",
          "sagemaker:ListApps",
          "sagemaker:ListDomains",
          "sagemaker:ListHyperParameterTuningJobs",
          "sagemaker:ListProcessingJobs",
          "sagemaker:ListSpaces",
          "sagemaker:ListTrainingJobs",
          "sagemaker:ListUserProfiles",
          "ssmmessages:CreateControlChannel",
          "ssmmessages:CreateDataChannel",
          "ssmmessages:OpenControlChannel",
          "ssmmessages:OpenDataChannel",
          "xray:PutTelemetryRecords",
          "xray:PutTraceSegments",
        ]
        Resource = "*"
      },
    ],
    [for statement in [
      {
        Sid      = "ExternalPictures"
        Action   = ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"]
        Resource = flatten([for arn in local.external : [arn, "${arn}/*"]])
      },
      {
        # Their keys are in accounts this one does not know; a role's own policy names them, and so must their owners' policies.
        Sid       = "ExternalKeys"
        Action    = "kms:Decrypt"
        Resource  = "arn:${local.partition}:kms:*:*:key/*"
        Condition = { StringLike = { "kms:ViaService" = "s3.*.${data.aws_partition.current.dns_suffix}" }, StringNotEquals = { "aws:ResourceAccount" = local.account_id } }
      },
    ] : statement if length(local.external) > 0],
  )
}

resource "aws_iam_policy" "boundary" {
  name        = local.boundary_name
  path        = local.path
  description = "The most that a role of ${var.project} may do."

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in local.boundary : merge({ Effect = "Allow" }, statement)]
  })
}
