locals {
  images = { for name, image in module.training.images : name => image.uri }

  deployment = {
    region              = var.region
    prefix              = local.prefix
    kms_key_arn         = module.storage.kms_key_arn
    data_bucket         = module.storage.data_bucket.name
    artifacts_bucket    = module.storage.artifacts_bucket.name
    network             = local.network
    execution_role_arn  = module.training.role_arn
    bundle              = module.training.bundle
    images              = local.images
    model_package_group = module.training.model_package_group_name
    feature_group       = module.training.feature_group_name
    endpoint = {
      name          = module.endpoint.name
      variant       = module.endpoint.variant_name
      configuration = module.endpoint.configuration_name
    }
    function = one([for function in module.classify_function : {
      name      = function.name
      alias_arn = function.alias_arn
      url       = function.url
    }])
    ec2_trainer = {
      launch_template_id = module.ec2_trainer.launch_template_id
      instance_id        = module.ec2_trainer.instance_id
      log_group          = module.ec2_trainer.log_group_name
      output_url         = module.ec2_trainer.output_url
    }
    notebook_url = one(module.notebook[*].url)
    dashboard    = module.observability.dashboard_name
    alarm_topic  = module.observability.topic_arn
  }
}

# Apart from the deployment, because it depends on no endpoint: it is also there after an apply that stopped for want of
# the image that this builds.
output "image_build" {
  description = "What builds the images, for `make image`: sources go to image/ in the bucket, encrypted with the key."
  value = {
    region           = var.region
    kms_key_arn      = module.storage.kms_key_arn
    artifacts_bucket = module.storage.artifacts_bucket.name
    images           = local.images
    project          = module.training.image_build_project_name
  }
}

output "deployment" {
  description = "Names and addresses of what was made; the `dogbreed` commands read them. endpoint.configuration is null while no model is live."
  value       = local.deployment
}
