data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  name       = "${var.prefix}-classify"
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name
  arn        = "arn:${local.partition}:lambda:${local.region}:${local.account_id}:function:${local.name}"

  # One fetch, then two attempts of a 2 s connection and an answer each, a second between them and one to spare: the
  # function itself can then say 504 before Lambda cuts it off without a word.
  invoke_timeout_s = floor((var.timeout_s - var.fetch_timeout_s - 6) / 2)
}

# Before the function, or Lambda creates one that is not encrypted and never expires.
resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/lambda/${local.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_116:The alias sends failed events to the queue, with the reason; a dead-letter queue would get them twice and without it.
  #checkov:skip=CKV_AWS_117:It fetches public pictures; inside a VPC that takes a NAT gateway. The variable network puts it inside.
  #checkov:skip=CKV_AWS_272:The package is built from this repository and pinned by its hash; a signing profile would sign what the same pipeline built.
  function_name = local.name
  description   = "Fetches a picture and has ${var.endpoint_name} classify it."
  role          = aws_iam_role.this.arn

  filename         = var.package_path
  source_code_hash = try(filebase64sha256(var.package_path), null) # the validation tells of a missing package
  handler          = "handler.handler"
  runtime          = "python3.13"
  architectures    = ["arm64"] # a fifth cheaper than x86_64, and the package is pure Python
  publish          = true

  memory_size                    = var.memory_mb
  timeout                        = var.timeout_s
  reserved_concurrent_executions = var.reserved_concurrency
  kms_key_arn                    = var.kms_key_arn
  tags                           = var.tags

  environment {
    variables = merge(
      {
        ENDPOINT_NAME    = var.endpoint_name
        FETCH_TIMEOUT_S  = var.fetch_timeout_s
        INVOKE_TIMEOUT_S = local.invoke_timeout_s
        MAX_PAYLOAD_MB   = var.payload_max_mb
        MAX_PICTURE_MIB  = var.picture_max_mib
      },
      length(var.fetch_exempt_hosts) == 0 ? {} : { FETCH_EXEMPT_HOSTS = join(",", var.fetch_exempt_hosts) },
      coalesce(var.page, var.url_auth != "OFF") ? { PAGE = "1" } : {},
    )
  }

  logging_config {
    log_format            = "JSON"
    log_group             = aws_cloudwatch_log_group.this.name
    application_log_level = "INFO"
    system_log_level      = "INFO" # the report of each call (duration, memory, cold start) is of this level
  }

  tracing_config {
    mode = "Active"
  }

  dynamic "vpc_config" {
    for_each = var.network[*]

    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  # Lambda checks the role's rights on network interfaces when it creates the function.
  depends_on = [aws_iam_role_policy.this, aws_iam_role_policy.network]
}

# All traffic goes to one version: with weights between two, provisioned concurrency cannot be changed.
resource "aws_lambda_alias" "live" {
  name             = "live"
  description      = "The version that callers use."
  function_name    = aws_lambda_function.this.function_name
  function_version = aws_lambda_function.this.version
}

# Counts the answers of 500 and above: the function reports them to its caller, so Lambda's own error metric sees none.
resource "aws_cloudwatch_log_metric_filter" "failures" {
  name           = "${local.name}-failures"
  log_group_name = aws_cloudwatch_log_group.this.name
  pattern        = "{ $.status >= 500 }"

  metric_transformation {
    namespace     = var.prefix
    name          = "ClassifyFailures"
    value         = "1"
    default_value = "0"
  }
}
