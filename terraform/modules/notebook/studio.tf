locals {
  studio_script = base64encode(templatefile("${path.module}/scripts/studio_on_start.sh.tftpl", {
    install       = file("${path.module}/scripts/install.sh")
    bundle_uri    = local.bundle_uri
    bundle_sha256 = local.bundle_sha256
    region        = local.region
  }))
}

# Cannot be changed, nor deleted while a domain names it: so the content's hash is in the name, and the new one comes first.
resource "aws_sagemaker_studio_lifecycle_config" "notebook" {
  count = local.studio ? 1 : 0

  studio_lifecycle_config_name     = "${local.name}-${substr(sha256(local.studio_script), 0, 8)}"
  studio_lifecycle_config_app_type = "JupyterLab"
  studio_lifecycle_config_content  = local.studio_script
  tags                             = var.tags

  lifecycle {
    create_before_destroy = true

    postcondition {
      condition     = length(self.studio_lifecycle_config_content) <= 16384
      error_message = "SageMaker takes 16,384 characters of a lifecycle script. Shorten the files in scripts/."
    }
  }
}

resource "aws_sagemaker_domain" "studio" {
  count = local.studio ? 1 : 0

  domain_name             = var.prefix
  auth_mode               = "IAM"
  app_network_access_type = "VpcOnly"
  vpc_id                  = var.network.vpc_id
  subnet_ids              = var.network.subnet_ids
  kms_key_id              = var.kms_key_arn
  tag_propagation         = "ENABLED" # costs of apps show under the same tags
  tags                    = var.tags

  default_user_settings {
    execution_role  = aws_iam_role.notebook.arn
    security_groups = var.network.security_group_ids

    # The new Studio alone; Studio Classic would make an app of its own for everybody.
    studio_web_portal   = "ENABLED"
    default_landing_uri = "studio::"

    jupyter_lab_app_settings {
      lifecycle_config_arns = [aws_sagemaker_studio_lifecycle_config.notebook[0].arn]

      default_resource_spec {
        instance_type        = var.instance_type
        lifecycle_config_arn = aws_sagemaker_studio_lifecycle_config.notebook[0].arn
      }

      app_lifecycle_management {
        idle_settings {
          lifecycle_management    = "ENABLED"
          idle_timeout_in_minutes = var.idle_minutes
        }
      }
    }

    space_storage_settings {
      default_ebs_storage_settings {
        default_ebs_volume_size_in_gb = var.volume_gb
        maximum_ebs_volume_size_in_gb = var.volume_gb
      }
    }
  }

  # Kept by default, and paid for ever after the domain is gone.
  retention_policy {
    home_efs_file_system = "Delete"
  }

  depends_on = [aws_iam_role_policy.notebook, aws_iam_role_policy_attachment.job_launcher]
}

resource "aws_sagemaker_user_profile" "studio" {
  count = local.studio ? 1 : 0

  domain_id         = aws_sagemaker_domain.studio[0].id
  user_profile_name = local.profile_name
  tags              = var.tags

  user_settings {
    execution_role = aws_iam_role.notebook.arn
  }

  depends_on = [aws_iam_role_policy.studio]
}

locals {
  profile_name = "notebook"
  domain_id    = one(aws_sagemaker_domain.studio[*].id)
  profile_arn  = "${local.sagemaker_arn}:user-profile/${coalesce(local.domain_id, "-")}/${local.profile_name}"
}

# The domain comes before this policy, which names it, and after the role's other rights.
resource "aws_iam_role_policy" "studio" {
  count = local.studio ? 1 : 0

  name = "studio"
  role = aws_iam_role.notebook.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "SeeStudio"
        Effect   = "Allow"
        Action   = ["sagemaker:DescribeDomain", "sagemaker:DescribeUserProfile"]
        Resource = [aws_sagemaker_domain.studio[0].arn, local.profile_arn]
      },
      {
        # Studio's pages open JupyterLab in the role's name.
        Sid      = "OpenStudio"
        Effect   = "Allow"
        Action   = "sagemaker:CreatePresignedDomainUrl"
        Resource = local.profile_arn
      },
      {
        # Studio's pages list before they show; the lists know no resources.
        Sid      = "ListStudio"
        Effect   = "Allow"
        Action   = ["sagemaker:ListApps", "sagemaker:ListDomains", "sagemaker:ListSpaces", "sagemaker:ListUserProfiles"]
        Resource = "*"
      },
      {
        Sid    = "OwnSpaces"
        Effect = "Allow"
        Action = ["sagemaker:CreateSpace", "sagemaker:DeleteSpace", "sagemaker:UpdateSpace"]

        Resource = "${local.sagemaker_arn}:space/${local.domain_id}/*"
        Condition = {
          ArnEquals    = { "sagemaker:OwnerUserProfileArn" = local.profile_arn }
          StringEquals = { "sagemaker:SpaceSharingType" = "Private" }
        }
      },
      {
        Sid      = "StartApps"
        Effect   = "Allow"
        Action   = "sagemaker:CreateApp"
        Resource = "${local.sagemaker_arn}:app/${local.domain_id}/*"
        Condition = {
          ArnEquals                   = { "sagemaker:OwnerUserProfileArn" = local.profile_arn }
          "ForAllValues:StringEquals" = { "sagemaker:InstanceTypes" = ["system", var.instance_type] }
        }
      },
      {
        Sid       = "StopApps"
        Effect    = "Allow"
        Action    = "sagemaker:DeleteApp"
        Resource  = "${local.sagemaker_arn}:app/${local.domain_id}/*"
        Condition = { ArnEquals = { "sagemaker:OwnerUserProfileArn" = local.profile_arn } }
      },
      {
        Sid      = "SeeApps"
        Effect   = "Allow"
        Action   = ["sagemaker:DescribeApp", "sagemaker:DescribeSpace"]
        Resource = ["${local.sagemaker_arn}:app/${local.domain_id}/*", "${local.sagemaker_arn}:space/${local.domain_id}/*"]
      },
      {
        Sid       = "TagOnCreate"
        Effect    = "Allow"
        Action    = "sagemaker:AddTags"
        Resource  = ["${local.sagemaker_arn}:app/${local.domain_id}/*", "${local.sagemaker_arn}:space/${local.domain_id}/*"]
        Condition = { StringEquals = { "sagemaker:TaggingAction" = ["CreateApp", "CreateSpace"] } }
      },
    ]
  })
}
