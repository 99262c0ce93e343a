locals {
  feature_group_name = "${var.prefix}-embeddings"
}

# One record per picture and backbone: features of a frozen network never change, so nobody computes them twice.
resource "aws_sagemaker_feature_group" "embeddings" {
  feature_group_name             = local.feature_group_name
  description                    = "Embeddings of pictures by frozen backbones."
  record_identifier_feature_name = "record_id"
  event_time_feature_name        = "event_time"
  role_arn                       = aws_iam_role.feature_store.arn
  tags                           = var.tags

  dynamic "feature_definition" {
    for_each = {
      record_id   = "String" # "<sha256 of the picture>-<backbone>"
      event_time  = "String" # ISO 8601 in UTC: yyyy-MM-ddTHH:mm:ssZ
      sha256      = "String"
      backbone    = "String"
      split       = "String"
      breed       = "String"
      class_index = "Integral"
      dimension   = "Integral"
      # Base64 of little-endian float32. A vector type needs the in-memory online store, which is paid by the hour and
      # keeps nothing in S3 as one column; text holds the exact bits, and 1,280 numbers in 7 KB.
      embedding = "String"
    }

    content {
      feature_name = feature_definition.key
      feature_type = feature_definition.value
    }
  }

  offline_store_config {
    # The table would be made in a Glue database that all feature groups of the account share and nobody deletes.
    # The Parquet files are complete without it.
    disable_glue_table_creation = true

    s3_storage_config {
      s3_uri     = "s3://${var.artifacts_bucket.name}/features"
      kms_key_id = var.kms_key_arn
    }
  }

  dynamic "online_store_config" {
    for_each = var.feature_store.online ? [true] : []

    content {
      enable_online_store = true
      storage_type        = "Standard"

      security_config {
        kms_key_id = var.kms_key_arn
      }
    }
  }

  # SageMaker tries the role against the bucket while it makes the group.
  depends_on = [aws_iam_role_policy.feature_store]
}
