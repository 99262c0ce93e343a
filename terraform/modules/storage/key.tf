# The policy delegates to IAM (the principal is the account, so a role still needs the action in its own policy), but only
# through the services this project uses: no role, however broad, can decrypt anything by calling KMS directly.
# In a key's policy the resource "*" means this key; AWS accepts nothing else there.

locals {
  own_account = { AWS = "arn:${local.partition}:iam::${local.account_id}:root" }

  cipher_actions = [
    "kms:Decrypt",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
  ]

  via = { for service in ["ec2", "ecr", "elasticfilesystem", "lambda", "s3", "sagemaker", "sns", "sqs", "ssm"] : service => "${service}.${local.region}.${data.aws_partition.current.dns_suffix}" }

  # SNS names the topic to KMS. EventBridge sends no aws:SourceAccount or aws:SourceArn when it publishes to an encrypted
  # topic; with those conditions its notifications would be dropped without a trace. This holds for every publisher.
  own_topics = { ArnLike = { "kms:EncryptionContext:aws:sns:topicArn" = "arn:${local.partition}:sns:${local.region}:${local.account_id}:${var.prefix}-*" } }

  key_statements = concat(
    [
      {
        Sid       = "AccountAdministers"
        Principal = local.own_account
        Action = [
          "kms:CancelKeyDeletion",
          "kms:CreateAlias",
          "kms:DeleteAlias",
          "kms:DescribeKey",
          "kms:DisableKey",
          "kms:DisableKeyRotation",
          "kms:EnableKey",
          "kms:EnableKeyRotation",
          "kms:GetKeyPolicy",
          "kms:GetKeyRotationStatus",
          "kms:ListGrants",
          "kms:ListKeyPolicies",
          "kms:ListKeyRotations",
          "kms:ListResourceTags",
          "kms:PutKeyPolicy",
          "kms:RevokeGrant",
          "kms:RotateKeyOnDemand",
          "kms:ScheduleKeyDeletion",
          "kms:TagResource",
          "kms:UntagResource",
          "kms:UpdateAlias",
          "kms:UpdateKeyDescription",
        ]
      },
      {
        Sid       = "AccountUsesThroughServices"
        Principal = local.own_account
        Action    = concat(local.cipher_actions, ["kms:RetireGrant"])
        Condition = { StringEquals = { "kms:ViaService" = values(local.via) } }
      },
      {
        # For what holds the key longer than one request: a volume, a function's environment, a repository, a file system.
        # Without kms:ViaService, because SageMaker asks with the role of the job and not in the caller's name.
        Sid       = "AccountGrantsToServices"
        Principal = local.own_account
        Action    = ["kms:CreateGrant"]
        Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
      },
      {
        # A spot host is started by a role of EC2's own, whose policy knows no keys: it can be granted this one. It may not
        # exist yet, and KMS refuses a policy that names a missing principal as one; as a condition it may be named.
        Sid       = "AccountGrantsToSpotHosts"
        Principal = local.own_account
        Action    = ["kms:CreateGrant"]
        Condition = { StringEquals = { "kms:GranteePrincipal" = "arn:${local.partition}:iam::${local.account_id}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot" } }
      },
      {
        Sid       = "LogGroups"
        Principal = { Service = "logs.${local.region}.${data.aws_partition.current.dns_suffix}" }
        Action    = concat(local.cipher_actions, ["kms:DescribeKey"])
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${local.partition}:logs:${local.region}:${local.account_id}:log-group:*" } }
      },
      {
        Sid       = "AlarmsAndBudgetsPublish"
        Principal = { Service = ["budgets.amazonaws.com", "cloudwatch.amazonaws.com"] }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Condition = merge(local.own_topics, { StringEquals = { "aws:SourceAccount" = local.account_id } })
      },
      {
        Sid       = "EventsPublish"
        Principal = { Service = "events.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Condition = local.own_topics
      },
    ],
    # The bucket's policy alone lets another account fetch bytes it cannot decrypt.
    length(local.data_readers) == 0 ? [] : [{
      Sid       = "ReadersDecryptData"
      Principal = { AWS = local.data_readers }
      Action    = ["kms:Decrypt"]
      Condition = {
        StringEquals = { "kms:ViaService" = [local.via["s3"]] }
        # The bucket's ARN with a bucket key, the object's without.
        ArnLike = { "kms:EncryptionContext:aws:s3:arn" = [local.bucket_arns.data, "${local.bucket_arns.data}/*"] }
      }
    }],
  )
}

resource "aws_kms_key" "this" {
  description             = "Encrypts what ${var.prefix} stores."
  enable_key_rotation     = true
  deletion_window_in_days = var.kms_deletion_window_days
  tags                    = var.tags

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in local.key_statements : merge({ Effect = "Allow", Resource = "*" }, statement)]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.prefix}"
  target_key_id = aws_kms_key.this.key_id
}
