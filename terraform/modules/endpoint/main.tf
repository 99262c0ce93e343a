data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name

  deployed     = var.model != null
  on_instances = var.kind != "serverless"

  # Never names what runs in it: another variant name is another variant, without the auto-scaling of the first.
  variant_name = "AllTraffic"

  # An update starts a second fleet of this size, whatever auto-scaling has made of the first.
  fleet_size = max(1, coalesce(var.roll_out.instances, var.min_instances))

  # Disks inside the instance encrypt themselves, and SageMaker refuses a key for them. All types with a GPU since g4dn have
  # such disks, Trainium too, and the families with a "d" after the generation.
  has_own_disks = can(regex("^ml\\.(g[0-9r][a-z0-9]*|p3dn|p[4-9][a-z0-9-]*|trn[a-z0-9-]*|dl1|i[0-9][a-z0-9]*|[cmrx][0-9]+[a-z]*d[a-z]*)\\.", var.instance_type))
  volume_key    = local.on_instances && !local.has_own_disks ? var.kms_key_arn : null

  # <account>.dkr.ecr.<region>.<domain>/<repository>, then a tag or a digest
  image_pattern = "^([0-9]{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.[a-z.]+/([a-z0-9][a-z0-9._/-]*)(?::[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$"
  chosen_image  = try(var.model.image, null)
  ours          = local.deployed && local.chosen_image == null
  image = (
    local.ours ? var.serving_image.uri :
    local.chosen_image == "aws" ? one(data.aws_sagemaker_prebuilt_ecr_image.pytorch[*].registry_path) : local.chosen_image
  )
  aws_container = local.chosen_image == "aws" || try(regex(local.image_pattern, var.model.image)[2], "") == "pytorch-inference"
  data_key      = try(trimprefix(var.model.data_url, "s3://${var.artifacts_bucket.name}/"), null)

  # What AWS's container needs to find the hooks in the archive; another image knows its own way.
  environment = merge(
    { for name, value in {
      SAGEMAKER_CONTAINER_LOG_LEVEL = "20"
      SAGEMAKER_PROGRAM             = "inference.py"
      SAGEMAKER_REGION              = local.region
      SAGEMAKER_SUBMIT_DIRECTORY    = "/opt/ml/model/code"
    } : name => value if local.aws_container },
    try(var.model.environment, {}),
  )
  vpc = local.on_instances ? var.network : null
}

# A model cannot be changed, only replaced, and the old one has to outlive its last instance. This makes a new name for each,
# also when a former model comes back while its old self is kept because an update failed: a hash would be taken then.
resource "terraform_data" "model" {
  count = local.deployed ? 1 : 0

  triggers_replace = [
    var.model.data_url, local.image, local.environment, local.vpc, local.on_instances, aws_iam_role.endpoint.name,
  ]

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  model_name = local.deployed ? "${var.name}-${substr(terraform_data.model[0].id, 0, 8)}" : null
}

data "aws_sagemaker_prebuilt_ecr_image" "pytorch" {
  count = local.chosen_image == "aws" ? 1 : 0

  repository_name = "pytorch-inference"
  image_tag       = "2.6.0-cpu-py312-ubuntu22.04-sagemaker"
}

# The next two: SageMaker would find out minutes into the roll-out.
#
# The provider fails where there is no such image, and all that can be added to its words is the line that it points to.
data "aws_ecr_image" "serving" { # There is no such image? Build it first: make image ENV=<environment>
  count = local.ours && var.check_image ? 1 : 0

  repository_name = var.serving_image.repository
  image_tag       = var.serving_image.tag
}

data "aws_s3_objects" "model" {
  count = local.deployed ? 1 : 0

  bucket   = var.artifacts_bucket.name
  prefix   = local.data_key
  max_keys = 1 # an object sorts before all that its key is a prefix of

  lifecycle {
    postcondition {
      condition     = contains(self.keys, local.data_key)
      error_message = "There is no model at ${var.model.data_url}. Upload it there, or name a model that exists."
    }
  }
}

resource "aws_sagemaker_model" "this" {
  count = local.deployed ? 1 : 0

  name                     = local.model_name
  execution_role_arn       = aws_iam_role.endpoint.arn
  enable_network_isolation = local.on_instances && var.model.network_isolation # serverless endpoints cannot
  tags                     = var.tags

  primary_container {
    image          = local.image
    model_data_url = var.model.data_url
    environment    = local.environment
  }

  dynamic "vpc_config" {
    for_each = local.vpc[*]

    content {
      subnets            = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  lifecycle {
    create_before_destroy = true
  }

  # SageMaker tries the role while it makes the model.
  depends_on = [
    aws_iam_role_policy.endpoint, aws_iam_role_policy.model, data.aws_ecr_image.serving, data.aws_s3_objects.model,
  ]
}

resource "aws_sagemaker_endpoint_configuration" "this" {
  count = local.deployed ? 1 : 0

  name_prefix = "${var.name}-"
  kms_key_arn = local.volume_key
  tags        = var.tags

  production_variants {
    variant_name           = local.variant_name
    model_name             = aws_sagemaker_model.this[0].name
    initial_variant_weight = 1 # whole numbers only: SageMaker gives 0.9 back as 0.8999…, a change on every plan
    initial_instance_count = local.on_instances ? local.fleet_size : null
    instance_type          = local.on_instances ? var.instance_type : null

    # An archive is some 20 MB and the server answers after seconds, so a model that cannot start is known to be one soon.
    # AWS's container first installs what it lacks.
    model_data_download_timeout_in_seconds            = local.on_instances ? 300 : null
    container_startup_health_check_timeout_in_seconds = local.on_instances ? (local.aws_container ? 600 : 180) : null

    dynamic "routing_config" {
      for_each = var.kind == "real-time" ? [true] : []

      content {
        routing_strategy = "LEAST_OUTSTANDING_REQUESTS" # at random, some requests queue while another instance is idle
      }
    }

    dynamic "serverless_config" {
      for_each = var.kind == "serverless" ? [var.serverless] : []

      content {
        memory_size_in_mb       = serverless_config.value.memory_mb
        max_concurrency         = serverless_config.value.max_concurrency
        provisioned_concurrency = serverless_config.value.provisioned_concurrency
      }
    }
  }

  dynamic "async_inference_config" {
    for_each = var.kind == "async" ? [var.async] : []

    content {
      # An empty block crashes the provider (5.100).
      dynamic "client_config" {
        for_each = async_inference_config.value.concurrency_per_instance[*]

        content {
          max_concurrent_invocations_per_instance = client_config.value
        }
      }

      output_config {
        s3_output_path  = "s3://${var.artifacts_bucket.name}/async/output/"
        s3_failure_path = "s3://${var.artifacts_bucket.name}/async/failures/"
        kms_key_id      = var.kms_key_arn

        dynamic "notification_config" {
          for_each = length(local.async_topic_arns) > 0 ? [true] : []

          content {
            success_topic = var.async.success_topic_arn
            error_topic   = var.async.error_topic_arn
          }
        }
      }
    }
  }

  dynamic "data_capture_config" {
    for_each = var.data_capture_percent > 0 ? [var.data_capture_percent] : []

    content {
      enable_capture              = true
      initial_sampling_percentage = data_capture_config.value
      destination_s3_uri          = "s3://${var.artifacts_bucket.name}/capture"
      kms_key_id                  = var.kms_key_arn

      capture_options {
        capture_mode = "Input"
      }

      capture_options {
        capture_mode = "Output"
      }

      capture_content_type_header {
        json_content_types = ["application/json"] # readable; everything else is kept as base64
      }
    }
  }

  # The old configuration has to be there until the endpoint has left it.
  lifecycle {
    create_before_destroy = true
  }
}

# An endpoint of one kind cannot become one of another.
resource "terraform_data" "kind" {
  input = var.kind
}

resource "aws_sagemaker_endpoint" "this" {
  count = local.deployed ? 1 : 0

  name                 = var.name
  endpoint_config_name = aws_sagemaker_endpoint_configuration.this[0].name
  tags                 = var.tags

  dynamic "deployment_config" {
    for_each = local.on_instances ? [var.roll_out] : []

    content {
      blue_green_update_policy {
        termination_wait_in_seconds          = deployment_config.value.termination_wait_s
        maximum_execution_timeout_in_seconds = deployment_config.value.timeout_s

        traffic_routing_configuration {
          type                     = upper(deployment_config.value.strategy)
          wait_interval_in_seconds = deployment_config.value.strategy == "all_at_once" ? 0 : deployment_config.value.wait_s

          dynamic "canary_size" {
            for_each = deployment_config.value.strategy == "canary" ? [deployment_config.value.size_percent] : []

            content {
              type  = "CAPACITY_PERCENT"
              value = canary_size.value
            }
          }

          dynamic "linear_step_size" {
            for_each = deployment_config.value.strategy == "linear" ? [deployment_config.value.size_percent] : []

            content {
              type  = "CAPACITY_PERCENT"
              value = linear_step_size.value
            }
          }
        }
      }

      dynamic "auto_rollback_configuration" {
        for_each = length(var.rollback_alarm_names) > 0 ? [true] : []

        content {
          dynamic "alarms" {
            for_each = var.rollback_alarm_names

            content {
              alarm_name = alarms.value
            }
          }
        }
      }
    }
  }

  lifecycle {
    replace_triggered_by = [terraform_data.kind]

    # The provider takes an update that was rolled back for a success, and Terraform would go on to delete the configuration
    # that the endpoint is back on. Failing here keeps it.
    postcondition {
      condition     = self.endpoint_config_name == aws_sagemaker_endpoint_configuration.this[0].name
      error_message = <<-EOT
        SageMaker rolled the update of ${var.name} back: it still serves ${self.endpoint_config_name}, which is kept.
        Why: aws sagemaker describe-endpoint --endpoint-name ${var.name} --query FailureReason
        An alarm that rang (${join(", ", var.rollback_alarm_names)}) takes updates back also when the old model is the cause; a container that did not start says why in the log group ${aws_cloudwatch_log_group.endpoint.name}.
        Apply again once the alarms are OK and the model is mended, or promote the former one. If the instance type was to change, auto-scaling is off until then.
      EOT
    }
  }

  depends_on = [aws_iam_role_policy.endpoint, aws_iam_role_policy.model, aws_cloudwatch_log_group.endpoint]
}

# SageMaker would make this group itself, without a key and for ever.
resource "aws_cloudwatch_log_group" "endpoint" {
  name              = "/aws/sagemaker/Endpoints/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}
