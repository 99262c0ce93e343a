# What whoever starts jobs needs: the notebook, CI, a person. Attach it; it belongs to no role of this module.
#
# Starting an image build is left out on purpose: `codebuild:StartBuild` lets the caller replace the build's commands,
# and so do whatever the build's role may.
resource "aws_iam_policy" "job_launcher" {
  name        = "${var.prefix}-job-launcher"
  description = "Start and follow jobs named ${var.prefix}-*, upload pictures, read results, add and register models."
  tags        = var.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # The key must be named by its ARN and a job without one is refused: the bucket would refuse its results at the
        # end, hours later. Network isolation cannot be asked for, since AWS's container fetches the code by itself.
        Sid    = "CreateJobs"
        Effect = "Allow"
        Action = [
          "sagemaker:CreateHyperParameterTuningJob",
          "sagemaker:CreateProcessingJob",
          "sagemaker:CreateTrainingJob",
        ]
        Resource = local.job_arns
        Condition = merge(
          {
            ArnEquals = { "sagemaker:OutputKmsKey" = var.kms_key_arn }
            # Instances with disks of their own (g4dn, g5) encrypt them in hardware and accept no key.
            ArnEqualsIfExists = { "sagemaker:VolumeKmsKey" = var.kms_key_arn }
          },
          # "For all values" also holds for none at all, so the null test is what makes jobs run in the network.
          {
            for operator, keys in {
              "ForAllValues:StringEquals" = {
                "sagemaker:VpcSubnets"          = local.subnet_ids
                "sagemaker:VpcSecurityGroupIds" = local.security_group_ids
              }
              Null = {
                "sagemaker:VpcSubnets"          = "false"
                "sagemaker:VpcSecurityGroupIds" = "false"
              }
            } : operator => keys if var.network != null
          },
        )
      },
      {
        Sid    = "FollowJobs"
        Effect = "Allow"
        Action = [
          "sagemaker:DescribeHyperParameterTuningJob",
          "sagemaker:DescribeProcessingJob",
          "sagemaker:DescribeTrainingJob",
          "sagemaker:ListTags",
          "sagemaker:ListTrainingJobsForHyperParameterTuningJob",
          "sagemaker:StopHyperParameterTuningJob",
          "sagemaker:StopProcessingJob",
          "sagemaker:StopTrainingJob",
        ]
        Resource = local.job_arns
      },
      {
        # Lists of jobs know no resources: they show the names of all jobs of the account.
        Sid      = "ListJobs"
        Effect   = "Allow"
        Action   = ["sagemaker:ListHyperParameterTuningJobs", "sagemaker:ListProcessingJobs", "sagemaker:ListTrainingJobs"]
        Resource = "*"
      },
      {
        # Only while making something: retagging later could move costs elsewhere.
        Sid      = "TagOnCreate"
        Effect   = "Allow"
        Action   = "sagemaker:AddTags"
        Resource = concat(local.job_arns, ["${local.sagemaker_arn}:model-package/${var.prefix}/*"])
        Condition = { StringEquals = { "sagemaker:TaggingAction" = [
          "CreateHyperParameterTuningJob", "CreateModelPackage", "CreateProcessingJob", "CreateTrainingJob",
        ] } }
      },
      {
        Sid       = "PassExecutionRole"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = aws_iam_role.execution.arn
        Condition = { StringEquals = { "iam:PassedToService" = "sagemaker.amazonaws.com" } }
      },
      {
        Sid      = "ReadLogs"
        Effect   = "Allow"
        Action   = "logs:GetLogEvents"
        Resource = [for arn in local.job_logs : "${arn}:log-stream:${var.prefix}-*"]
      },
      {
        # Finding a job's streams: their names, in the whole group, but nothing of what they say.
        Sid      = "FindLogs"
        Effect   = "Allow"
        Action   = "logs:DescribeLogStreams"
        Resource = [for arn in local.job_logs : "${arn}*"] # with and without ":*" at the end
      },
      {
        Sid      = "ListBuckets"
        Effect   = "Allow"
        Action   = ["s3:GetBucketLocation", "s3:ListBucket"]
        Resource = [var.data_bucket.arn, var.artifacts_bucket.arn]
      },
      {
        Sid      = "Read"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = concat(["${var.data_bucket.arn}/*"], [for prefix in local.job_reads : "${var.artifacts_bucket.arn}/${prefix}/*"])
      },
      {
        Sid    = "Upload"
        Effect = "Allow"
        Action = ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObject"]
        Resource = [
          "${var.data_bucket.arn}/*",
          "${var.artifacts_bucket.arn}/code/jobs/*",
          "${var.artifacts_bucket.arn}/models/*",
        ]
      },
      {
        # A live endpoint reads its archive again whenever it adds an instance: archives are added (If-None-Match: *), never
        # replaced. The parts of a large one cannot carry that header; the request that joins them must.
        Sid       = "NeverReplaceModels"
        Effect    = "Deny"
        Action    = "s3:PutObject"
        Resource  = "${var.artifacts_bucket.arn}/models/*"
        Condition = { Null = { "s3:if-none-match" = "true" }, Bool = { "s3:ObjectCreationOperation" = "true" } }
      },
      {
        Sid      = "UseKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"]
        Resource = var.kms_key_arn
      },
      {
        Sid       = "EncryptVolumes"
        Effect    = "Allow"
        Action    = "kms:CreateGrant"
        Resource  = var.kms_key_arn
        Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
      },
      {
        Sid    = "RegisterModels"
        Effect = "Allow"
        Action = [
          "sagemaker:CreateModelPackage",
          "sagemaker:DescribeModelPackage",
          "sagemaker:DescribeModelPackageGroup",
          "sagemaker:ListModelPackages",
          "sagemaker:UpdateModelPackage",
        ]
        Resource = [aws_sagemaker_model_package_group.models.arn, "${local.sagemaker_arn}:model-package/${var.prefix}/*"]
      },
      {
        Sid      = "UseFeatures"
        Effect   = "Allow"
        Action   = ["sagemaker:BatchGetRecord", "sagemaker:DescribeFeatureGroup", "sagemaker:GetRecord", "sagemaker:PutRecord"]
        Resource = local.feature_group
      },
      {
        Sid      = "FindImages"
        Effect   = "Allow"
        Action   = "ecr:DescribeImages"
        Resource = aws_ecr_repository.image["training"].arn
      },
    ]
  })

  lifecycle {
    postcondition {
      condition     = length(jsonencode(jsondecode(self.policy))) <= 6144
      error_message = "IAM takes 6,144 characters of a managed policy. Shorten prefix, or give the network fewer subnets."
    }
  }
}
