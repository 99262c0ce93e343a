# Who may do what to the buckets. The rights of this account's own roles are in those roles; here are only what nobody may
# do, and what other accounts and S3 itself may.

locals {
  encryption_header = "s3:x-amz-server-side-encryption"

  # A denial with StringNotEquals also hits a request without the header, with or without IfExists: "not equal" is true of
  # nothing. Those requests are welcome, the bucket's default encrypts them with the right key; hence the Null conditions.
  denied_uploads = {
    DenyOtherAlgorithm = {
      Null            = { (local.encryption_header) = "false" }
      StringNotEquals = { (local.encryption_header) = "aws:kms" }
    }
    DenyOtherKey = {
      Null            = { "${local.encryption_header}-aws-kms-key-id" = "false" }
      StringNotEquals = { "${local.encryption_header}-aws-kms-key-id" = aws_kms_key.this.arn }
    }
    # With a key of the caller's own S3 sees neither header, and who takes that key away takes the data.
    DenyCallersKey = {
      Null = { "${local.encryption_header}-customer-algorithm" = "false" }
    }
    # "aws:kms" without a key's name means the account's aws/s3 key, not the bucket's default, and no other account can ever
    # read what that key encrypts. Not for artifacts: SageMaker writes like this where its API has no key parameter.
    DenyUnnamedKey = {
      Null         = { "${local.encryption_header}-aws-kms-key-id" = "true" }
      StringEquals = { (local.encryption_header) = "aws:kms" }
    }
  }

  denied_upload_sids = {
    data      = ["DenyOtherAlgorithm", "DenyOtherKey", "DenyCallersKey", "DenyUnnamedKey"]
    artifacts = ["DenyOtherAlgorithm", "DenyOtherKey", "DenyCallersKey"]
    logs      = []
  }

  data_readers = [for id in sort(var.data_reader_account_ids) : "arn:${local.partition}:iam::${id}:root"]

  allowed = {
    data = [
      for statement in [
        { Sid = "ReadersGetObjects", Action = "s3:GetObject", Resource = "${local.bucket_arns.data}/*" },
        { Sid = "ReadersListObjects", Action = ["s3:GetBucketLocation", "s3:ListBucket"], Resource = local.bucket_arns.data },
      ] : merge(statement, { Effect = "Allow", Principal = { AWS = local.data_readers } }) if length(local.data_readers) > 0
    ]
    artifacts = []
    logs = [for kind in ["data", "artifacts"] : {
      Sid       = "Deliver${title(kind)}Log"
      Effect    = "Allow"
      Principal = { Service = "logging.s3.amazonaws.com" }
      Action    = "s3:PutObject"
      Resource  = "${local.bucket_arns.logs}/${kind}/*"
      Condition = {
        ArnEquals    = { "aws:SourceArn" = local.bucket_arns[kind] }
        StringEquals = { "aws:SourceAccount" = local.account_id }
      }
    }]
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.bucket_names
  bucket   = aws_s3_bucket.this[each.key].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "DenyPlainHttp"
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "s3:*"
        Resource  = [local.bucket_arns[each.key], "${local.bucket_arns[each.key]}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }],
      [for sid in local.denied_upload_sids[each.key] : {
        Sid       = sid
        Effect    = "Deny"
        Principal = { AWS = "*" }
        Action    = "s3:PutObject"
        Resource  = "${local.bucket_arns[each.key]}/*"
        Condition = local.denied_uploads[sid]
      }],
      local.allowed[each.key],
    )
  })

  # S3 refuses to change the access block and the policy of a bucket at the same moment.
  depends_on = [aws_s3_bucket_public_access_block.this]
}
