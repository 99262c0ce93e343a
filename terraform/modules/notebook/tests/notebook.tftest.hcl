mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/dogbreed-dev-notebook" }
  }
  mock_resource "aws_sagemaker_notebook_instance" {
    defaults = { arn = "arn:aws:sagemaker:eu-central-1:123456789012:notebook-instance/dogbreed-dev-notebook", url = "dogbreed-dev-notebook.notebook.eu-central-1.sagemaker.aws" }
  }
  mock_resource "aws_sagemaker_domain" {
    defaults = { id = "d-abc", arn = "arn:aws:sagemaker:eu-central-1:123456789012:domain/d-abc", url = "https://d-abc.studio.eu-central-1.sagemaker.aws" }
  }
  mock_resource "aws_sagemaker_studio_lifecycle_config" {
    defaults = { arn = "arn:aws:sagemaker:eu-central-1:123456789012:studio-lifecycle-config/mocked" }
  }
}

variables {
  prefix                  = "dogbreed-dev"
  kms_key_arn             = "arn:aws:kms:eu-central-1:123456789012:key/11111111-1111-1111-1111-111111111111"
  artifacts_bucket        = { name = "artifacts", arn = "arn:aws:s3:::artifacts" }
  job_launcher_policy_arn = "arn:aws:iam::123456789012:policy/dogbreed-dev-job-launcher"
  bundle_path             = "versions.tf" # any file
  endpoint_arn            = "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/dogbreed-dev"
  network = {
    vpc_id             = "vpc-1"
    subnet_ids         = ["subnet-1", "subnet-2"]
    security_group_ids = ["sg-1"]
  }
}

run "instance" {
  command = apply

  variables {
    idle_minutes             = 90
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
  }

  assert {
    condition = (
      aws_sagemaker_notebook_instance.notebook[0].root_access == "Disabled"
      && aws_sagemaker_notebook_instance.notebook[0].direct_internet_access == "Disabled"
      && aws_sagemaker_notebook_instance.notebook[0].subnet_id == "subnet-1"
      && aws_sagemaker_notebook_instance.notebook[0].kms_key_id == var.kms_key_arn
      && aws_sagemaker_notebook_instance.notebook[0].instance_metadata_service_configuration[0].minimum_instance_metadata_service_version == "2"
    )
    error_message = "The instance has root, internet, an open metadata service, or an unencrypted volume."
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.notebook[0].instance_type == "ml.t3.medium" && length(aws_sagemaker_domain.studio) == 0
    error_message = "The default is not one small instance."
  }

  assert {
    condition = alltrue([
      for part in [
        "--idle-minutes 90 ",
        "--notebook-instance-name dogbreed-dev-notebook ",
        "'s3://artifacts/code/notebook.tar.gz' '${filesha256("versions.tf")}'",
        file("scripts/idle_stop.py"),
        file("scripts/install.sh"),
      ] : strcontains(base64decode(aws_sagemaker_notebook_instance_lifecycle_configuration.notebook[0].on_start), part)
    ])
    error_message = "The start script does not set up the idle stop, or installs something else."
  }

  assert {
    condition     = length(regexall("[$][{]|%[{]", base64decode(aws_sagemaker_notebook_instance_lifecycle_configuration.notebook[0].on_start))) == 0
    error_message = "Something in the start script was not filled in."
  }

  # --------------------------------------------------------------------------------------------------------- rights
  assert {
    condition     = aws_iam_role_policy_attachment.job_launcher.policy_arn == var.job_launcher_policy_arn && aws_iam_role.notebook.permissions_boundary == var.permissions_boundary_arn
    error_message = "The notebook cannot start jobs, or its role is outside the boundary."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.notebook.policy).Statement : s.Resource if s.Sid == "StopItself"]) == "arn:aws:sagemaker:eu-central-1:123456789012:notebook-instance/dogbreed-dev-notebook"
    error_message = "The notebook cannot stop itself, or can stop others."
  }

  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.notebook.policy).Statement : s.Resource if strcontains(jsonencode(s.Action), "Invoke")] == ["arn:aws:sagemaker:eu-central-1:123456789012:endpoint/dogbreed-dev"]
    error_message = "The notebook cannot ask the endpoint, or can ask others."
  }

  assert {
    condition = alltrue(flatten([
      for s in jsondecode(aws_iam_role_policy.notebook.policy).Statement : [
        !contains(flatten([s.Resource]), "*"), [for a in flatten([s.Action]) : !strcontains(a, "*")]
    ]]))
    error_message = "The notebook has rights by pattern, or on everything."
  }

  assert {
    condition = jsondecode(aws_iam_role.notebook.assume_role_policy).Statement[0].Condition == {
      StringEquals    = { "aws:SourceAccount" = "123456789012" }
      ArnLikeIfExists = { "aws:SourceArn" = "arn:aws:sagemaker:eu-central-1:123456789012:notebook-instance/dogbreed-dev-notebook" }
    }
    error_message = "Other notebooks may have this role."
  }

  assert {
    condition     = output.url == "https://dogbreed-dev-notebook.notebook.eu-central-1.sagemaker.aws"
    error_message = "The address does not open."
  }
}

run "instance_without_a_network" {
  command = apply

  variables {
    network = null
  }

  assert {
    condition     = aws_sagemaker_notebook_instance.notebook[0].direct_internet_access == "Enabled" && aws_sagemaker_notebook_instance.notebook[0].subnet_id == null
    error_message = "Without a network and without internet, the instance would reach nothing."
  }
}

run "studio" {
  command = apply

  variables {
    kind = "studio"
  }

  assert {
    condition = (
      aws_sagemaker_domain.studio[0].app_network_access_type == "VpcOnly"
      && aws_sagemaker_domain.studio[0].auth_mode == "IAM"
      && aws_sagemaker_domain.studio[0].kms_key_id == var.kms_key_arn
      && aws_sagemaker_domain.studio[0].retention_policy[0].home_efs_file_system == "Delete"
      && length(aws_sagemaker_notebook_instance.notebook) == 0
    )
    error_message = "The domain has internet, no key, leaves its file system behind, or comes with an instance."
  }

  assert {
    condition     = aws_sagemaker_domain.studio[0].default_user_settings[0].jupyter_lab_app_settings[0].app_lifecycle_management[0].idle_settings[0].idle_timeout_in_minutes == 60
    error_message = "Idle apps go on."
  }

  assert {
    condition     = strcontains(base64decode(aws_sagemaker_studio_lifecycle_config.notebook[0].studio_lifecycle_config_content), "'s3://artifacts/code/notebook.tar.gz' '${filesha256("versions.tf")}'")
    error_message = "Studio installs something else."
  }

  assert {
    condition     = endswith(aws_sagemaker_studio_lifecycle_config.notebook[0].studio_lifecycle_config_name, substr(sha256(aws_sagemaker_studio_lifecycle_config.notebook[0].studio_lifecycle_config_content), 0, 8))
    error_message = "A changed script would have the name of the one that is in use."
  }

  assert {
    condition = sort(flatten([
      for s in concat(jsondecode(aws_iam_role_policy.notebook.policy).Statement, jsondecode(aws_iam_role_policy.studio[0].policy).Statement) : s.Action if contains(flatten([s.Resource]), "*")
    ])) == sort(["sagemaker:ListApps", "sagemaker:ListDomains", "sagemaker:ListSpaces", "sagemaker:ListUserProfiles"])
    error_message = "An action is granted on all resources that could name them."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.studio[0].policy).Statement : s.Condition if s.Sid == "StartApps"])["ForAllValues:StringEquals"]["sagemaker:InstanceTypes"] == ["system", "ml.t3.medium"]
    error_message = "Somebody in Studio may start any machine."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.studio[0].policy).Statement : s.Resource if s.Action == "sagemaker:CreatePresignedDomainUrl"]) == "arn:aws:sagemaker:eu-central-1:123456789012:user-profile/d-abc/notebook"
    error_message = "JupyterLab does not open from Studio, or opens as somebody else."
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.notebook.policy, "StopNotebookInstance")
    error_message = "Studio has rights on notebook instances."
  }
}

run "bad_input" {
  command = plan

  variables {
    prefix        = "Dog_Breed"
    instance_type = "t3.medium"
    volume_gb     = 4
    idle_minutes  = 5
    bundle_path   = "nothing.tar.gz"
    endpoint_arn  = "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/*"
  }

  expect_failures = [var.prefix, var.instance_type, var.volume_gb, var.idle_minutes, var.bundle_path, var.endpoint_arn]
}

run "unknown_kind" {
  command = plan

  variables {
    kind = "laptop"
  }

  expect_failures = [var.kind]
}

run "studio_without_a_network" {
  command = plan

  variables {
    kind    = "studio"
    network = null
  }

  expect_failures = [var.kind]
}

run "studio_idle_time_too_short" {
  command = plan

  variables {
    kind         = "studio"
    idle_minutes = 30
  }

  expect_failures = [var.idle_minutes]
}
