# A place to work from: a notebook instance (instance.tf) or a Studio domain (studio.tf). It starts jobs, reads their
# results, has the package installed, and stops when nobody uses it.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account_id    = data.aws_caller_identity.current.account_id
  partition     = data.aws_partition.current.partition
  region        = data.aws_region.current.name
  sagemaker_arn = "arn:${local.partition}:sagemaker:${local.region}:${local.account_id}"

  name          = "${var.prefix}-notebook"
  studio        = var.kind == "studio"
  bundle_sha256 = try(filesha256(var.bundle_path), "") # a missing file is reported by the variable's validation
  bundle_uri    = "s3://${aws_s3_object.bundle.bucket}/${aws_s3_object.bundle.key}"
}

resource "aws_s3_object" "bundle" {
  bucket             = var.artifacts_bucket.name
  key                = "code/notebook.tar.gz"
  source             = var.bundle_path
  source_hash        = local.bundle_sha256
  content_type       = "application/gzip"
  checksum_algorithm = "SHA256"
  kms_key_id         = var.kms_key_arn
  metadata           = { sha256 = local.bundle_sha256 }
  tags               = var.tags
}
