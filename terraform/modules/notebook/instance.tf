# A changed script takes effect at the next start; the instance is not touched.
resource "aws_sagemaker_notebook_instance_lifecycle_configuration" "notebook" {
  count = local.studio ? 0 : 1

  name = local.name
  tags = var.tags

  on_start = base64encode(templatefile("${path.module}/scripts/instance_on_start.sh.tftpl", {
    install       = file("${path.module}/scripts/install.sh")
    idle_stop     = file("${path.module}/scripts/idle_stop.py")
    bundle_uri    = local.bundle_uri
    bundle_sha256 = local.bundle_sha256
    region        = local.region
    name          = local.name
    idle_minutes  = var.idle_minutes
  }))

  lifecycle {
    postcondition {
      condition     = length(self.on_start) <= 16384
      error_message = "SageMaker takes 16,384 characters of a lifecycle script. Shorten the files in scripts/."
    }
  }
}

resource "aws_sagemaker_notebook_instance" "notebook" {
  count = local.studio ? 0 : 1

  #checkov:skip=CKV_AWS_122:Off whenever there is a network; without one, SageMaker's own internet access is the only way to reach AWS
  #checkov:skip=CKV_AWS_306:In our subnet whenever there is a network; the network is the user's choice and on by default for dev and prod
  name                  = local.name
  role_arn              = aws_iam_role.notebook.arn
  instance_type         = var.instance_type
  platform_identifier   = "notebook-al2-v3"
  volume_size           = var.volume_gb
  kms_key_id            = var.kms_key_arn
  lifecycle_config_name = aws_sagemaker_notebook_instance_lifecycle_configuration.notebook[0].name
  root_access           = "Disabled" # people; the lifecycle script runs as root all the same
  tags                  = var.tags

  subnet_id              = try(var.network.subnet_ids[0], null)
  security_groups        = try(var.network.security_group_ids, null)
  direct_internet_access = var.network == null ? "Enabled" : "Disabled"

  instance_metadata_service_configuration {
    minimum_instance_metadata_service_version = "2"
  }

  # The first start already uses all of the role's rights.
  depends_on = [aws_iam_role_policy.notebook, aws_iam_role_policy_attachment.job_launcher]
}
