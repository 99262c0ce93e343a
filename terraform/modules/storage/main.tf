# Three buckets: data (pictures), artifacts (whatever jobs and the endpoint read and write) and logs (who did what to the
# other two). One key encrypts the first two and every other thing of this project that AWS encrypts.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name

  # Computed rather than taken from the bucket, because the key's policy names them and the buckets wait for the key.
  bucket_names = { for kind in ["data", "artifacts", "logs"] : kind => "${var.prefix}-${kind}-${local.account_id}-${local.region}" }
  bucket_arns  = { for kind, name in local.bucket_names : kind => "arn:${local.partition}:s3:::${name}" }

  # Days until the objects under a key prefix are deleted.
  expirations = {
    data = {}
    artifacts = {
      "checkpoints/" = var.checkpoint_retention_days
      "capture/"     = var.request_retention_days
      "async/"       = var.request_retention_days
    }
    logs = { "" = var.log_retention_days }
  }
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_144:A copy in another region doubles the cost of data that can be uploaded or trained again; versions cover mistakes.
  #checkov:skip=CKV2_AWS_62:Nothing reacts to an object's arrival, jobs are started by name; notifications nobody reads are noise.
  #checkov:skip=CKV_AWS_18:Both content buckets log to the logs bucket; only that one does not, because its log would log itself without end.
  #checkov:skip=CKV_AWS_145:Both content buckets use the project's key; S3's log delivery cannot write to a bucket whose default is such a key.
  for_each      = local.bucket_names
  bucket        = each.value
  force_destroy = var.delete_data_on_destroy
  tags          = var.tags

  # So that `destroy` reaches the key last: when a bucket that still holds data stops it, the key that reads them remains.
  depends_on = [aws_kms_key.this]
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.bucket_names
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = local.bucket_names
  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.bucket_names
  bucket   = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.bucket_names
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    # One data key per bucket and time slice: a job that reads a hundred thousand pictures makes few calls to KMS, not as many.
    bucket_key_enabled = each.key != "logs"

    apply_server_side_encryption_by_default {
      sse_algorithm     = each.key == "logs" ? "AES256" : "aws:kms"
      kms_master_key_id = each.key == "logs" ? null : aws_kms_key.this.arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.bucket_names
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    id     = "clean-up"
    status = "Enabled"
    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_retention_days
    }
    # An expiration in days removes the delete markers it leaves behind itself, and one bucket-wide rule may not hold both.
    dynamic "expiration" {
      for_each = contains(keys(local.expirations[each.key]), "") ? [] : [true]

      content {
        expired_object_delete_marker = true
      }
    }
  }

  dynamic "rule" {
    for_each = local.expirations[each.key]

    content {
      id     = "expire-${trimsuffix(coalesce(rule.key, "all"), "/")}"
      status = "Enabled"

      filter {
        prefix = rule.key
      }
      expiration {
        days = rule.value
      }
    }
  }

  # S3 refuses rules for old versions where versioning was never on.
  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_logging" "this" {
  for_each      = toset(["data", "artifacts"])
  bucket        = aws_s3_bucket.this[each.key].id
  target_bucket = aws_s3_bucket.this["logs"].id
  target_prefix = "${each.key}/"

  # Without the policy S3 accepts the setting and then drops every record.
  depends_on = [aws_s3_bucket_policy.this]
}
