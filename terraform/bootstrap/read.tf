# What `terraform plan` reads of this project: settings, not pictures, logs or secrets.

locals {
  read = [
    {
      Sid = "Buckets"
      Action = [
        "s3:GetAccelerateConfiguration",
        "s3:GetBucket*",
        "s3:GetEncryptionConfiguration",
        "s3:GetLifecycleConfiguration",
        "s3:GetReplicationConfiguration",
        "s3:ListBucket",
      ]
      Resource = local.buckets
    },
    {
      # The objects that Terraform itself uploads.
      Sid      = "Bundles"
      Action   = ["s3:GetObject", "s3:GetObjectAttributes", "s3:GetObjectTagging", "s3:GetObjectVersion"]
      Resource = "${local.buckets}/code/*"
    },
    {
      Sid       = "Keys"
      Action    = ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListGrants", "kms:ListResourceTags"]
      Resource  = local.keys
      Condition = { StringEquals = local.is_project }
    },
    {
      # Reading an encrypted bundle or parameter.
      Sid       = "Decrypt"
      Action    = "kms:Decrypt"
      Resource  = local.keys
      Condition = { StringEquals = merge(local.is_project, { "kms:ViaService" = [local.via["s3"], local.via["ssm"]] }) }
    },
    {
      Sid      = "Roles"
      Action   = ["iam:Get*", "iam:List*"]
      Resource = [for kind in ["instance-profile", "policy", "role"] : "${local.iam_arn}:${kind}/${var.project}-*"]
    },
    {
      Sid      = "SageMaker"
      Action   = ["sagemaker:Describe*", "sagemaker:GetModelPackageGroupPolicy", "sagemaker:ListTags"]
      Resource = concat(local.sagemaker, local.studio)
    },
    {
      Sid      = "Functions"
      Action   = ["lambda:Get*", "lambda:List*"]
      Resource = "${local.arn.lambda}:function:${var.project}-*"
    },
    {
      Sid    = "Messages"
      Action = ["sns:GetTopicAttributes", "sns:ListTagsForResource", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ListQueueTags"]
      Resource = [
        "${local.arn.sns}:${var.project}-*",
        "${local.arn.sqs}:${var.project}-*",
      ]
    },
    {
      Sid      = "Events"
      Action   = ["events:DescribeRule", "events:ListTagsForResource", "events:ListTargetsByRule"]
      Resource = "${local.arn.events}:rule/${var.project}-*"
    },
    {
      Sid      = "Images"
      Action   = ["ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:GetLifecyclePolicy", "ecr:GetRepositoryPolicy", "ecr:ListTagsForResource"]
      Resource = "${local.arn.ecr}:repository/${var.project}-*"
    },
    {
      Sid      = "Builds"
      Action   = "codebuild:BatchGetProjects"
      Resource = "${local.arn.codebuild}:project/${var.project}-*"
    },
    {
      Sid      = "Alarms"
      Action   = ["cloudwatch:DescribeAlarms", "cloudwatch:GetDashboard", "cloudwatch:ListTagsForResource"]
      Resource = ["${local.cloudwatch_arn}:alarm:${var.project}-*", local.dashboard_arn]
    },
    {
      Sid      = "Budget"
      Action   = ["budgets:ListTagsForResource", "budgets:ViewBudget"]
      Resource = local.budget_arn
    },
    {
      Sid      = "LogGroups"
      Action   = ["logs:DescribeMetricFilters", "logs:ListTagsForResource"]
      Resource = local.log_groups
    },
    {
      # The project's own, and AWS's list of newest machine images.
      Sid    = "Parameters"
      Action = ["ssm:GetParameter", "ssm:GetParameters", "ssm:ListTagsForResource"]
      Resource = [
        "${local.arn.ssm}:parameter/${var.project}-*",
        "arn:${local.partition}:ssm:${var.region}::parameter/aws/service/*",
      ]
    },
    {
      Sid      = "ScalingTags"
      Action   = "application-autoscaling:ListTagsForResource"
      Resource = "${local.arn["application-autoscaling"]}:scalable-target/*"
    },
    {
      Sid       = "HostsAndNetwork"
      Action    = ["ec2:DescribeInstanceAttribute", "ec2:DescribeVpcAttribute"]
      Resource  = [for kind in ["instance", "vpc"] : "${local.arn.ec2}:${kind}/*"]
      Condition = { StringEquals = local.is_project }
    },
    {
      # Calls without resource-level permission, or that list before they know a name. All show settings only.
      Sid = "NoResources"
      Action = [
        "application-autoscaling:Describe*",
        "ec2:DescribeAvailabilityZones",
        "ec2:DescribeFlowLogs",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceCreditSpecifications",
        "ec2:DescribeInstanceTypeOfferings",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeInstances",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeLaunchTemplates",
        "ec2:DescribeNetworkAcls",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribePrefixLists",
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroupRules",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSpotInstanceRequests",
        "ec2:DescribeSubnets",
        "ec2:DescribeTags",
        "ec2:DescribeVolumes",
        "ec2:DescribeVpcEndpointServices",
        "ec2:DescribeVpcEndpoints",
        "ec2:DescribeVpcs",
        "iam:ListRoles",
        "kms:ListAliases",
        "logs:DescribeLogGroups",
        "sns:GetSubscriptionAttributes",
        "ssm:DescribeParameters",
      ]
      Resource = "*"
    },
  ]
}
