# What a user sets arrives where it belongs: read from the plan by python/tests/test_terraform_modules.py.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "settings" {
  command = plan

  variables {
    environment        = "dev"
    log_retention_days = 90
    data               = { request_retention_days = 7 }
    endpoint           = { kind = "serverless" }
    classify_function  = { fetch_exempt_hosts = ["127.0.0.1:8000"] }
    ec2_trainer        = { ami_id = "ami-0123456789abcdef0", ami_owners = ["210987654321"] }
    alarms             = { budget_tag = { key = "Project", value = "dogbreed" } }
  }

  override_data {
    target = module.ec2_trainer.data.aws_ami_ids.pinned
    values = { ids = ["ami-0123456789abcdef0"] }
  }
  override_data {
    target = module.ec2_trainer.data.aws_ami.pinned
    values = { architecture = "x86_64", root_device_name = "/dev/sda1", block_device_mappings = [] }
  }
}
