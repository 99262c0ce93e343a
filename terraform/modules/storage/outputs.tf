locals {
  buckets = { for kind, bucket in aws_s3_bucket.this : kind => { name = bucket.bucket, arn = bucket.arn } }
}

output "kms_key_arn" {
  description = "Key for everything this project stores."
  value       = aws_kms_key.this.arn
}

output "data_bucket" {
  description = "Bucket of the pictures: name and ARN, handed over once it is encrypted, closed and versioned."
  value       = local.buckets.data
  depends_on = [
    aws_s3_bucket_ownership_controls.this,
    aws_s3_bucket_policy.this,
    aws_s3_bucket_server_side_encryption_configuration.this,
    aws_s3_bucket_versioning.this,
  ]
}

output "artifacts_bucket" {
  description = "Bucket of code, models and all other results: name and ARN, handed over once it is encrypted, closed and versioned."
  value       = local.buckets.artifacts
  depends_on = [
    aws_s3_bucket_ownership_controls.this,
    aws_s3_bucket_policy.this,
    aws_s3_bucket_server_side_encryption_configuration.this,
    aws_s3_bucket_versioning.this,
  ]
}

output "logs_bucket" {
  description = "Bucket of the other buckets' access logs: name and ARN."
  value       = local.buckets.logs
  depends_on = [
    aws_s3_bucket_ownership_controls.this,
    aws_s3_bucket_policy.this,
    aws_s3_bucket_server_side_encryption_configuration.this,
    aws_s3_bucket_versioning.this,
  ]
}
