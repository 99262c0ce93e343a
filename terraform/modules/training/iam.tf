# Three roles, each for one purpose: running jobs, writing the feature store's files, building the images.

locals {
  job_kinds     = ["training-job", "hyper-parameter-tuning-job", "processing-job"]
  job_arns      = [for kind in local.job_kinds : "${local.sagemaker_arn}:${kind}/${var.prefix}-*"]
  job_logs      = [for kind in ["TrainingJobs", "ProcessingJobs"] : "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:/aws/sagemaker/${kind}"]
  feature_group = "${local.sagemaker_arn}:feature-group/${local.feature_group_name}"

  # What a job reads besides the pictures, and where it may write. It never changes code, captured requests or images, nor
  # models: an endpoint reads its archive again whenever it adds an instance, so whoever may write there speaks for it.
  job_reads  = ["code", "checkpoints", "features", "models", "output"]
  job_writes = ["checkpoints", "features", "output"]

  external_bucket_arns = [for name in var.external_bucket_names : "arn:${local.partition}:s3:::${name}"]
}

resource "aws_iam_role" "execution" {
  name                 = "${var.prefix}-training"
  description          = "What a training, tuning or processing job of ${var.prefix} may do."
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "SageMakerJobs"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "sagemaker.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account_id }
        # AWS documents the ARN for training and processing jobs; a tuning job that came without it would not start.
        ArnLikeIfExists = { "aws:SourceArn" = local.job_arns }
      }
    }]
  })
}

resource "aws_iam_role_policy" "execution" {
  name = "job"
  role = aws_iam_role.execution.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "ListPictures"
          Effect   = "Allow"
          Action   = ["s3:ListBucket", "s3:GetBucketLocation"]
          Resource = concat([var.data_bucket.arn], local.external_bucket_arns)
        },
        {
          Sid      = "ReadPictures"
          Effect   = "Allow"
          Action   = "s3:GetObject"
          Resource = [for arn in concat([var.data_bucket.arn], local.external_bucket_arns) : "${arn}/*"]
        },
        {
          Sid      = "ListArtifacts"
          Effect   = "Allow"
          Action   = "s3:ListBucket"
          Resource = var.artifacts_bucket.arn
          Condition = {
            StringLike = { "s3:prefix" = flatten([for prefix in local.job_reads : [prefix, "${prefix}/*"]]) }
          }
        },
        {
          Sid      = "LocateArtifacts"
          Effect   = "Allow"
          Action   = "s3:GetBucketLocation"
          Resource = var.artifacts_bucket.arn
        },
        {
          Sid      = "ReadArtifacts"
          Effect   = "Allow"
          Action   = "s3:GetObject"
          Resource = [for prefix in local.job_reads : "${var.artifacts_bucket.arn}/${prefix}/*"]
        },
        {
          Sid      = "WriteArtifacts"
          Effect   = "Allow"
          Action   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
          Resource = [for prefix in local.job_writes : "${var.artifacts_bucket.arn}/${prefix}/*"]
        },
        {
          Sid      = "UseKey"
          Effect   = "Allow"
          Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
          Resource = var.kms_key_arn
        },
        {
          # How SageMaker lets EBS encrypt the job's volume; the condition keeps the right from being used otherwise.
          Sid       = "EncryptVolumes"
          Effect    = "Allow"
          Action    = "kms:CreateGrant"
          Resource  = var.kms_key_arn
          Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
        },
        {
          # All jobs of an account log to the same groups, whatever environment they belong to. No Terraform root can
          # own them, so the first job makes them; set their retention once for the account.
          Sid      = "MakeLogGroups"
          Effect   = "Allow"
          Action   = ["logs:CreateLogGroup", "logs:DescribeLogStreams"]
          Resource = flatten([for arn in local.job_logs : [arn, "${arn}:*"]])
        },
        {
          Sid      = "WriteLogs"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = [for arn in local.job_logs : "${arn}:log-stream:${var.prefix}-*"]
        },
        {
          # PutMetricData knows no resources; the namespace is what can be limited.
          Sid       = "PutMetrics"
          Effect    = "Allow"
          Action    = "cloudwatch:PutMetricData"
          Resource  = "*"
          Condition = { StringEquals = { "cloudwatch:namespace" = ["/aws/sagemaker/TrainingJobs", "/aws/sagemaker/ProcessingJobs"] } }
        },
        {
          # A token is for the whole registry service and knows no resources; what it opens is the next statement.
          Sid      = "LogInToRegistry"
          Effect   = "Allow"
          Action   = "ecr:GetAuthorizationToken"
          Resource = "*"
        },
        {
          Sid    = "PullImages"
          Effect = "Allow"
          Action = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
          Resource = concat([aws_ecr_repository.image["training"].arn], [
            for name, image in data.aws_sagemaker_prebuilt_ecr_image.allowed :
            "arn:${local.partition}:ecr:${local.region}:${image.registry_id}:repository/${name}"
          ])
        },
        {
          Sid      = "UseFeatures"
          Effect   = "Allow"
          Action   = ["sagemaker:BatchGetRecord", "sagemaker:DescribeFeatureGroup", "sagemaker:GetRecord", "sagemaker:PutRecord"]
          Resource = local.feature_group
        },
      ],
      [for statement in local.network_statements : statement if var.network != null],
      [for arns in [sort(var.external_key_arns)] : {
        Sid       = "DecryptPicturesOfOthers"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = arns
        Condition = { StringLike = { "kms:ViaService" = "s3.*.${data.aws_partition.current.dns_suffix}" } }
      } if length(arns) > 0],
      [for arns in [sort(var.passable_role_arns)] : {
        Sid       = "PassRoles"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = arns
        Condition = { StringEquals = { "iam:PassedToService" = "sagemaker.amazonaws.com" } }
      } if length(arns) > 0],
    )
  })
}

locals {
  ec2_arn            = "arn:${local.partition}:ec2:${local.region}:${local.account_id}"
  subnet_ids         = try(var.network.subnet_ids, [])
  security_group_ids = try(var.network.security_group_ids, [])
  subnet_arns        = [for id in local.subnet_ids : "${local.ec2_arn}:subnet/${id}"]

  # SageMaker puts an interface of each instance into the network, in the role's name.
  network_statements = [
    {
      Sid    = "MakeNetworkInterfaces"
      Effect = "Allow"
      Action = "ec2:CreateNetworkInterface"
      Resource = concat(
        ["${local.ec2_arn}:network-interface/*"],
        local.subnet_arns,
        [for id in local.security_group_ids : "${local.ec2_arn}:security-group/${id}"],
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
        "ec2:DescribeVpcs",
      ]
      Resource = "*"
    },
  ]
}

resource "aws_iam_role" "feature_store" {
  name                 = "${var.prefix}-feature-store"
  description          = "Writes the files of ${var.prefix}'s feature group."
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "FeatureStore"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "sagemaker.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = local.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "feature_store" {
  name = "offline-store"
  role = aws_iam_role.feature_store.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # SageMaker reads the bucket's ACL to see who owns what it writes.
        Sid      = "InspectBucket"
        Effect   = "Allow"
        Action   = ["s3:GetBucketAcl", "s3:GetBucketLocation"]
        Resource = var.artifacts_bucket.arn
      },
      {
        # PutObjectAcl is for the "bucket owner has full control" that SageMaker writes with.
        Sid      = "WriteFiles"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:PutObjectAcl"]
        Resource = "${var.artifacts_bucket.arn}/features/*"
      },
      {
        Sid      = "UseKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
        Resource = var.kms_key_arn
      },
    ]
  })
}

resource "aws_iam_role" "image_build" {
  name                 = local.build_project_name
  description          = "Builds ${var.prefix}'s images and pushes them."
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "CodeBuild"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "codebuild.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account_id }
        ArnEquals    = { "aws:SourceArn" = "arn:${local.partition}:codebuild:${local.region}:${local.account_id}:project/${local.build_project_name}" }
      }
    }]
  })
}

resource "aws_iam_role_policy" "image_build" {
  name = "build"
  role = aws_iam_role.image_build.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "InspectBucket"
        Effect   = "Allow"
        Action   = ["s3:GetBucketAcl", "s3:GetBucketLocation"]
        Resource = var.artifacts_bucket.arn
      },
      {
        Sid      = "ReadSource"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:GetObjectVersion"]
        Resource = "${var.artifacts_bucket.arn}/image/*"
      },
      {
        Sid      = "UseKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
        Resource = var.kms_key_arn
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.image_build.arn}:*"
      },
      {
        # A token is for the whole registry service and knows no resources; what it opens is the next statement.
        Sid      = "LogInToRegistry"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*"
      },
      {
        Sid    = "PushImages"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability",
          "ecr:BatchGetImage", # a push asks first whether the manifest is there
          "ecr:CompleteLayerUpload",
          "ecr:DescribeImages",
          "ecr:InitiateLayerUpload",
          "ecr:PutImage",
          "ecr:UploadLayerPart",
        ]
        Resource = [for repository in aws_ecr_repository.image : repository.arn]
      },
    ]
  })
}
