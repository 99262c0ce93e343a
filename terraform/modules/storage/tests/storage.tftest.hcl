mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" { defaults = { account_id = "123456789012" } }
  mock_data "aws_partition" { defaults = { dns_suffix = "amazonaws.com", partition = "aws" } }
  mock_data "aws_region" { defaults = { name = "eu-central-1" } }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555" }
  }
}

variables {
  prefix = "dogbreed-dev"
}

run "buckets_are_closed_encrypted_and_versioned" {
  command = plan

  assert {
    condition     = { for kind, bucket in aws_s3_bucket.this : kind => bucket.bucket } == { for kind in ["artifacts", "data", "logs"] : kind => "dogbreed-dev-${kind}-123456789012-eu-central-1" }
    error_message = "Names hold kind, account and region, because bucket names are shared by all of AWS."
  }
  assert {
    condition     = !anytrue([for bucket in aws_s3_bucket.this : bucket.force_destroy])
    error_message = "By default `destroy` must stop at a bucket that holds something."
  }
  assert {
    condition = length(aws_s3_bucket_public_access_block.this) == 3 && alltrue([
      for block in aws_s3_bucket_public_access_block.this :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ])
    error_message = "No bucket may ever become public."
  }
  assert {
    condition     = length(aws_s3_bucket_versioning.this) == 3 && alltrue([for versioning in aws_s3_bucket_versioning.this : versioning.versioning_configuration[0].status == "Enabled"])
    error_message = "Every bucket keeps old versions."
  }
  assert {
    condition     = length(aws_s3_bucket_ownership_controls.this) == 3 && alltrue([for controls in aws_s3_bucket_ownership_controls.this : controls.rule[0].object_ownership == "BucketOwnerEnforced"])
    error_message = "Access control lists must be off."
  }
  assert {
    condition = alltrue([for kind in ["data", "artifacts"] : alltrue([
      for rule in aws_s3_bucket_server_side_encryption_configuration.this[kind].rule :
      rule.bucket_key_enabled && rule.apply_server_side_encryption_by_default[0].kms_master_key_id == aws_kms_key.this.arn
    ])])
    error_message = "Pictures and artifacts are encrypted with the project's key, through a bucket key."
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this["logs"].rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256"
    error_message = "S3 cannot deliver access logs to a bucket with a customer's key."
  }
  assert {
    condition     = { for kind, logging in aws_s3_bucket_logging.this : kind => logging.target_prefix } == { artifacts = "artifacts/", data = "data/" }
    error_message = "Both content buckets log under their own prefix; the logs bucket does not log itself."
  }
}

run "rules_delete_what_is_no_longer_needed" {
  command = plan

  variables {
    checkpoint_retention_days = 3
    request_retention_days    = 5
    noncurrent_retention_days = 7
    log_retention_days        = 90
  }

  assert {
    condition = {
      for kind, lifecycle in aws_s3_bucket_lifecycle_configuration.this :
      kind => { for rule in lifecycle.rule : try(rule.filter[0].prefix, "") => rule.expiration[0].days if rule.id != "clean-up" }
    } == { data = {}, artifacts = { "async/" = 5, "capture/" = 5, "checkpoints/" = 3 }, logs = { "" = 90 } }
    error_message = "Only checkpoints, stored requests and logs expire; pictures, code and models never do."
  }
  assert {
    condition = alltrue([for lifecycle in aws_s3_bucket_lifecycle_configuration.this : anytrue([
      for rule in lifecycle.rule :
      rule.id == "clean-up" && try(rule.noncurrent_version_expiration[0].noncurrent_days == 7 && rule.abort_incomplete_multipart_upload[0].days_after_initiation == 7, false)
    ])])
    error_message = "Old versions and incomplete uploads must not be billed for ever, in any bucket."
  }
}

run "nobody_circumvents_transport_or_encryption" {
  command = plan

  assert {
    condition = alltrue([for kind, bucket in aws_s3_bucket_policy.this : contains(jsondecode(bucket.policy).Statement, {
      Sid       = "DenyPlainHttp"
      Effect    = "Deny"
      Principal = { AWS = "*" }
      Action    = "s3:*"
      Resource  = ["arn:aws:s3:::dogbreed-dev-${kind}-123456789012-eu-central-1", "arn:aws:s3:::dogbreed-dev-${kind}-123456789012-eu-central-1/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    })])
    error_message = "Every bucket refuses plain HTTP, for itself and for its objects."
  }
  assert {
    condition = { for kind, bucket in aws_s3_bucket_policy.this : kind => [for statement in jsondecode(bucket.policy).Statement : statement.Sid] } == {
      artifacts = ["DenyPlainHttp", "DenyOtherAlgorithm", "DenyOtherKey", "DenyCallersKey"]
      data      = ["DenyPlainHttp", "DenyOtherAlgorithm", "DenyOtherKey", "DenyCallersKey", "DenyUnnamedKey"]
      logs      = ["DenyPlainHttp", "DeliverDataLog", "DeliverArtifactsLog"]
    }
    error_message = "A statement was added to or lost from a bucket's policy."
  }
  assert {
    condition = alltrue(flatten([for bucket in aws_s3_bucket_policy.this : [
      for statement in jsondecode(bucket.policy).Statement :
      alltrue([for header in keys(statement.Condition.StringNotEquals) : statement.Condition.Null[header] == "false"])
      if can(statement.Condition.StringNotEquals)
    ]]))
    error_message = "An upload without the header must pass, the bucket's default encrypts it: StringNotEquals needs Null = false beside it."
  }
  assert {
    condition     = contains([for statement in jsondecode(aws_s3_bucket_policy.this["data"].policy).Statement : try(statement.Condition.StringNotEquals["s3:x-amz-server-side-encryption-aws-kms-key-id"], "")], aws_kms_key.this.arn)
    error_message = "The one key that an upload may name is the project's."
  }
}

run "key_is_administered_by_the_account_and_used_through_services" {
  command = plan

  assert {
    condition     = aws_kms_key.this.enable_key_rotation && aws_kms_alias.this.name == "alias/dogbreed-dev" && aws_kms_key.this.deletion_window_in_days == 30
    error_message = "The key rotates, has a name, and can be rescued for 30 days."
  }
  assert {
    condition = [for statement in jsondecode(aws_kms_key.this.policy).Statement : statement.Sid] == [
      "AccountAdministers", "AccountUsesThroughServices", "AccountGrantsToServices", "AccountGrantsToSpotHosts",
      "LogGroups", "AlarmsAndBudgetsPublish", "EventsPublish",
    ]
    error_message = "A statement was added to or lost from the key's policy."
  }
  assert {
    condition     = !anytrue(flatten([for statement in jsondecode(aws_kms_key.this.policy).Statement : [for action in statement.Action : strcontains(action, "*")]]))
    error_message = "The key's policy names its actions."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.this.policy).Statement :
      length(setintersection(statement.Action, ["kms:CreateGrant", "kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom"])) == 0 || can(statement.Condition)
    ])
    error_message = "Whatever reads or passes on the key's power has a condition; the administration does neither."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.this.policy).Statement :
      try(statement.Condition.Bool["kms:GrantIsForAWSResource"] == "true", false) ||
      try(endswith(statement.Condition.StringEquals["kms:GranteePrincipal"], ":role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"), false)
      if contains(statement.Action, "kms:CreateGrant")
    ])
    error_message = "Only AWS services and AWS's role for spot hosts may be granted the key."
  }
  assert {
    condition     = !anytrue([for statement in jsondecode(aws_kms_key.this.policy).Statement : contains(flatten([try(statement.Principal.AWS, [])]), "*")])
    error_message = "The key's policy names its principals."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.this.policy).Statement :
      statement.Condition.ArnLike["kms:EncryptionContext:aws:sns:topicArn"] == "arn:aws:sns:eu-central-1:123456789012:dogbreed-dev-*"
      if length(setintersection(flatten([try(statement.Principal.Service, [])]), ["budgets.amazonaws.com", "cloudwatch.amazonaws.com", "events.amazonaws.com"])) > 0
    ])
    error_message = "Publishers use the key for this project's topics only."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.this.policy).Statement :
      !can(statement.Condition.StringEquals["aws:SourceAccount"]) if try(statement.Principal.Service, "") == "events.amazonaws.com"
    ])
    error_message = "EventBridge sends no source account for encrypted topics: with that condition its notifications are lost."
  }
}

run "other_accounts_read_pictures_and_nothing_else" {
  command = plan

  variables {
    data_reader_account_ids = ["210987654321"]
  }

  assert {
    condition = [for statement in jsondecode(aws_s3_bucket_policy.this["data"].policy).Statement : statement if statement.Effect == "Allow"] == [
      {
        Sid    = "ReadersGetObjects", Effect = "Allow", Principal = { AWS = ["arn:aws:iam::210987654321:root"] },
        Action = "s3:GetObject", Resource = "arn:aws:s3:::dogbreed-dev-data-123456789012-eu-central-1/*"
      },
      {
        Sid    = "ReadersListObjects", Effect = "Allow", Principal = { AWS = ["arn:aws:iam::210987654321:root"] },
        Action = ["s3:GetBucketLocation", "s3:ListBucket"], Resource = "arn:aws:s3:::dogbreed-dev-data-123456789012-eu-central-1"
      },
    ]
    error_message = "A reader lists the data bucket and gets its objects."
  }
  assert {
    condition     = !strcontains(aws_s3_bucket_policy.this["artifacts"].policy, "210987654321") && !strcontains(aws_s3_bucket_policy.this["logs"].policy, "210987654321")
    error_message = "A reader sees neither artifacts nor logs."
  }
  assert {
    condition = [for statement in jsondecode(aws_kms_key.this.policy).Statement : statement if strcontains(jsonencode(statement), "210987654321")] == [{
      Sid       = "ReadersDecryptData"
      Effect    = "Allow"
      Principal = { AWS = ["arn:aws:iam::210987654321:root"] }
      Action    = ["kms:Decrypt"]
      Resource  = "*"
      Condition = {
        StringEquals = { "kms:ViaService" = ["s3.eu-central-1.amazonaws.com"] }
        ArnLike = { "kms:EncryptionContext:aws:s3:arn" = [
          "arn:aws:s3:::dogbreed-dev-data-123456789012-eu-central-1", "arn:aws:s3:::dogbreed-dev-data-123456789012-eu-central-1/*",
        ] }
      }
    }]
    error_message = "A reader decrypts through S3 what the data bucket holds; without that the bucket's policy is worth nothing."
  }
}

run "data_is_deleted_when_told_to" {
  command = plan

  variables {
    delete_data_on_destroy = true
  }

  assert {
    condition     = alltrue([for bucket in aws_s3_bucket.this : bucket.force_destroy])
    error_message = "With delete_data_on_destroy nothing may hold `destroy` up."
  }
}

run "inputs_are_checked" {
  command = plan

  variables {
    prefix                    = "Dogbreed"
    data_reader_account_ids   = ["12345"]
    checkpoint_retention_days = 0
    request_retention_days    = 1.5
    noncurrent_retention_days = 0
    log_retention_days        = 0
    kms_deletion_window_days  = 5
  }

  expect_failures = [
    var.prefix,
    var.data_reader_account_ids,
    var.checkpoint_retention_days,
    var.request_retention_days,
    var.noncurrent_retention_days,
    var.log_retention_days,
    var.kms_deletion_window_days,
  ]
}
