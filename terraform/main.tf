data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  prefix        = "${var.project}-${var.environment}"
  endpoint_name = local.prefix
  endpoint_arn  = "arn:${data.aws_partition.current.partition}:sagemaker:${var.region}:${data.aws_caller_identity.current.account_id}:endpoint/${local.endpoint_name}"
  model         = lookup(var.models, var.environment, null)
  network       = one(module.network[*].network)
  build         = "${path.root}/../build"

  # A serverless endpoint takes 4 MB in one request, the others 6, and may first have to start, which takes up to a minute.
  function_defaults = module.endpoint.kind == "serverless" ? { timeout_s = 60, picture_max_mib = 3, payload_max_mb = 4 } : { timeout_s = null, picture_max_mib = null, payload_max_mb = null }

  data_bucket_arns     = [module.storage.data_bucket.arn, module.storage.artifacts_bucket.arn]
  external_bucket_arns = [for name in coalesce(var.data.external_bucket_names, []) : "arn:${data.aws_partition.current.partition}:s3:::${name}"]
}

module "storage" {
  source = "./modules/storage"

  prefix                    = local.prefix
  delete_data_on_destroy    = var.data.delete_on_destroy
  data_reader_account_ids   = var.data.reader_account_ids
  checkpoint_retention_days = var.data.checkpoint_retention_days
  request_retention_days    = var.data.request_retention_days
  noncurrent_retention_days = var.data.noncurrent_retention_days
  log_retention_days        = var.log_retention_days
}

module "network" {
  source = "./modules/network"
  count  = var.network.enabled ? 1 : 0

  prefix                   = local.prefix
  kms_key_arn              = module.storage.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
  cidr                     = var.network.cidr
  zones                    = var.network.zones
  bucket_arns              = concat(local.data_bucket_arns, local.external_bucket_arns)
  flow_log_retention_days  = var.log_retention_days
}

module "training" {
  source = "./modules/training"

  prefix                   = local.prefix
  kms_key_arn              = module.storage.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
  network                  = local.network
  data_bucket              = module.storage.data_bucket
  artifacts_bucket         = module.storage.artifacts_bucket
  external_bucket_names    = var.data.external_bucket_names
  external_key_arns        = var.data.external_key_arns
  passable_role_arns       = var.training.passable_role_arns
  bundle_path              = "${local.build}/training.tar.gz"
  image_source_paths       = { for name in ["serving", "training"] : name => "${local.build}/${name}-image.zip" }
  delete_images_on_destroy = true # images are no data: `make image` builds them again from the sources
  feature_store            = var.training.online_feature_store == null ? null : { online = var.training.online_feature_store }
  alarm_topic_arn          = module.observability.topic_arn
  log_retention_days       = var.log_retention_days
}

module "notebook" {
  source = "./modules/notebook"
  count  = var.notebook.kind == "none" ? 0 : 1

  prefix                   = local.prefix
  kms_key_arn              = module.storage.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
  network                  = local.network
  kind                     = var.notebook.kind
  instance_type            = var.notebook.instance_type
  volume_gb                = var.notebook.volume_gb
  idle_minutes             = var.notebook.idle_minutes
  bundle_path              = "${local.build}/${var.notebook.kind == "studio" ? "studio" : "notebook"}.tar.gz"
  artifacts_bucket         = module.storage.artifacts_bucket
  job_launcher_policy_arn  = module.training.job_launcher_policy_arn
  endpoint_arn             = local.endpoint_arn
}

module "endpoint" {
  source = "./modules/endpoint"

  prefix                   = local.prefix
  kms_key_arn              = module.storage.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
  network                  = local.network
  name                     = local.endpoint_name
  artifacts_bucket         = module.storage.artifacts_bucket
  model                    = local.model
  serving_image            = module.training.images["serving"]
  check_image              = var.check_image
  kind                     = var.endpoint.kind
  instance_type            = var.endpoint.instance_type
  min_instances            = var.endpoint.min_instances
  max_instances            = var.endpoint.max_instances
  invocations_per_instance = var.endpoint.invocations_per_instance
  scale_in_cooldown_s      = var.endpoint.scale_in_cooldown_s
  scale_out_cooldown_s     = var.endpoint.scale_out_cooldown_s
  schedules                = var.endpoint.schedules
  roll_out                 = var.endpoint.roll_out
  data_capture_percent     = var.endpoint.data_capture_percent
  serverless               = var.endpoint.serverless
  async                    = var.endpoint.async
  rollback_alarm_names     = module.observability.rollback_alarm_names
  log_retention_days       = var.log_retention_days
}

module "classify_function" {
  source = "./modules/classify_function"
  count  = var.classify_function.enabled ? 1 : 0

  prefix                      = local.prefix
  kms_key_arn                 = module.storage.kms_key_arn
  permissions_boundary_arn    = var.permissions_boundary_arn
  network                     = var.classify_function.in_network ? local.network : null
  package_path                = "${local.build}/lambda.zip"
  endpoint_name               = local.endpoint_name
  endpoint_arn                = local.endpoint_arn
  memory_mb                   = var.classify_function.memory_mb
  timeout_s                   = var.classify_function.timeout_s != null ? var.classify_function.timeout_s : local.function_defaults.timeout_s
  picture_max_mib             = var.classify_function.picture_max_mib != null ? var.classify_function.picture_max_mib : local.function_defaults.picture_max_mib
  payload_max_mb              = local.function_defaults.payload_max_mb
  fetch_exempt_hosts          = var.classify_function.fetch_exempt_hosts
  provisioned_concurrency     = var.classify_function.provisioned_concurrency
  provisioned_concurrency_max = var.classify_function.provisioned_concurrency_max
  reserved_concurrency        = var.classify_function.reserved_concurrency
  url_auth                    = var.classify_function.url_auth
  page                        = var.classify_function.page
  log_retention_days          = var.log_retention_days
}

module "ec2_trainer" {
  source = "./modules/ec2_trainer"

  prefix                   = local.prefix
  kms_key_arn              = module.storage.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
  network                  = local.network
  data_bucket              = module.storage.data_bucket
  artifacts_bucket         = module.storage.artifacts_bucket
  bundle                   = module.training.bundle
  running                  = var.ec2_trainer.running
  instance_type            = var.ec2_trainer.instance_type
  spot                     = var.ec2_trainer.spot
  volume_gb                = var.ec2_trainer.volume_gb
  max_hours                = var.ec2_trainer.max_hours
  ami_id                   = var.ec2_trainer.ami_id
  ami_owners               = var.ec2_trainer.ami_owners
  data_url                 = var.ec2_trainer.data_url
  arguments                = var.ec2_trainer.arguments
  log_retention_days       = var.log_retention_days
}

module "observability" {
  source = "./modules/observability"

  prefix      = local.prefix
  kms_key_arn = module.storage.kms_key_arn
  endpoint = local.model == null ? null : {
    name         = local.endpoint_name
    kind         = module.endpoint.kind
    variant_name = module.endpoint.variant_name
  }
  classify_function    = one(module.classify_function[*].watched)
  failed_job_rule_name = module.training.failed_job_rule_name
  notify_emails        = var.alarms.notify_emails
  monthly_budget_usd   = var.alarms.monthly_budget_usd
  budget_tag           = var.alarms.budget_tag
  latency_p99_ms       = var.endpoint.latency_p99_ms
}

# What the `dogbreed` commands need to know, also for machines without Terraform.
resource "aws_ssm_parameter" "deployment" {
  name        = "/${local.prefix}/deployment"
  description = "Names of what this environment is made of, as JSON; `terraform output deployment` says the same."
  type        = "SecureString"
  key_id      = module.storage.kms_key_arn
  value       = jsonencode(local.deployment)
}
