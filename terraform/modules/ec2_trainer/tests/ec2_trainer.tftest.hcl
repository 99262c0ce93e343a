mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_data "aws_default_tags" {
    defaults = { tags = { Project = "dogbreed" } }
  }
  mock_data "aws_vpcs" {
    defaults = { ids = ["vpc-0default"] }
  }
  mock_data "aws_ec2_instance_type_offerings" {
    defaults = { locations = ["eu-central-1b"] }
  }
  mock_data "aws_subnets" {
    defaults = { ids = ["subnet-b"] }
  }
  mock_data "aws_iam_roles" {
    defaults = { arns = ["arn:aws:iam::123456789012:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"] }
  }
  mock_data "aws_ami_ids" {
    defaults = { ids = ["ami-0123456789abcdef0"] }
  }
  mock_data "aws_ami" {
    defaults = {
      architecture     = "x86_64"
      root_device_name = "/dev/xvdb"
      block_device_mappings = [
        { device_name = "/dev/xvdb", ebs = { volume_size = "50" }, no_device = "", virtual_name = "" },
        { device_name = "/dev/xvdc", ebs = {}, no_device = "", virtual_name = "ephemeral0" },
      ]
    }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/dogbreed-test/trainer" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/dogbreed-test-trainer", id = "dogbreed-test-trainer" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/dogbreed-test-trainer" }
  }
  mock_resource "aws_security_group" {
    defaults = { id = "sg-0own" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123", latest_version = 1 }
  }
}

variables {
  prefix           = "dogbreed-test"
  kms_key_arn      = "arn:aws:kms:eu-central-1:123456789012:key/11111111-1111-1111-1111-111111111111"
  data_bucket      = { name = "dogbreed-test-data", arn = "arn:aws:s3:::dogbreed-test-data" }
  artifacts_bucket = { name = "dogbreed-test-artifacts", arn = "arn:aws:s3:::dogbreed-test-artifacts" }
  bundle = {
    bucket = "dogbreed-test-artifacts"
    key    = "code/training.tar.gz"
    uri    = "s3://dogbreed-test-artifacts/code/training.tar.gz"
    sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
  }
}

run "nothing_runs_until_asked" {
  command = apply

  assert {
    condition     = length(aws_instance.trainer) == 0 && output.instance_id == null
    error_message = "A host would run, and cost money, without being asked for."
  }
  assert {
    condition     = output.launch_template_id == "lt-0123" && output.output_url == "s3://dogbreed-test-artifacts/output/ec2/dogbreed-test"
    error_message = "The outputs do not say where template and results are."
  }
}

run "the_host_is_closed_and_encrypted" {
  command = apply

  variables {
    running = true
  }

  assert {
    condition     = aws_launch_template.trainer.metadata_options[0].http_tokens == "required" && aws_launch_template.trainer.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "IMDSv2 is not required, or containers on the host could use its role."
  }
  assert {
    condition     = aws_launch_template.trainer.key_name == null
    error_message = "A key pair would allow SSH."
  }
  assert {
    condition     = aws_launch_template.trainer.block_device_mappings[0].ebs[0].encrypted == "true" && aws_launch_template.trainer.block_device_mappings[0].ebs[0].kms_key_id == var.kms_key_arn && aws_launch_template.trainer.block_device_mappings[0].ebs[0].volume_type == "gp3" && aws_launch_template.trainer.block_device_mappings[0].ebs[0].delete_on_termination == "true"
    error_message = "The volume is not an encrypted gp3 that goes with its host."
  }
  assert {
    condition     = aws_launch_template.trainer.instance_initiated_shutdown_behavior == "stop"
    error_message = "A host that shuts down would be terminated, and made anew by the next apply."
  }
  assert {
    condition     = aws_launch_template.trainer.monitoring[0].enabled && aws_launch_template.trainer.ebs_optimized == "true"
    error_message = "Monitoring or EBS optimization is off."
  }
  assert {
    condition = (
      aws_instance.trainer[0].metadata_options[0].http_tokens == "required" && aws_instance.trainer[0].metadata_options[0].http_put_response_hop_limit == 1
      && aws_instance.trainer[0].monitoring && aws_instance.trainer[0].ebs_optimized
    )
    error_message = "A host that somebody has weakened would not show in a plan."
  }
  assert {
    condition     = length(aws_security_group.trainer[0].ingress) == 0 && aws_vpc_security_group_egress_rule.https[0].from_port == 443 && aws_vpc_security_group_egress_rule.https[0].to_port == 443
    error_message = "The host's own security group lets something in, or more than HTTPS out."
  }
  assert {
    condition     = aws_launch_template.trainer.vpc_security_group_ids == toset(["sg-0own"])
    error_message = "Without a network the host does not run in the default VPC with its own group."
  }
  assert {
    condition     = aws_cloudwatch_log_group.trainer.retention_in_days == 365 && aws_cloudwatch_log_group.trainer.kms_key_id == var.kms_key_arn
    error_message = "The log group keeps logs for ever or without the key."
  }
  assert {
    condition     = alltrue([for t in aws_launch_template.trainer.tag_specifications : t.tags["Project"] == "dogbreed" && t.tags["Name"] == "dogbreed-test-trainer"]) && toset(aws_launch_template.trainer.tag_specifications[*].resource_type) == toset(["instance", "volume", "network-interface"])
    error_message = "What the template launches lacks the default tags."
  }
  assert {
    condition     = aws_instance.trainer[0].launch_template[0].id == "lt-0123" && aws_instance.trainer[0].launch_template[0].version == "1"
    error_message = "The host does not start from the template's newest version."
  }
}

run "an_edit_of_the_code_leaves_a_host_that_trains_alone" {
  command = apply

  variables {
    running = true
    bundle = {
      bucket = "dogbreed-test-artifacts"
      key    = "code/training.tar.gz"
      uri    = "s3://dogbreed-test-artifacts/code/training.tar.gz"
      sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    }
  }

  assert {
    condition     = output.instance_id == run.the_host_is_closed_and_encrypted.instance_id && strcontains(base64decode(aws_launch_template.trainer.user_data), var.bundle.sha256)
    error_message = "The host is replaced in the middle of its training, or the next one would get the old code."
  }
}

run "another_setting_replaces_the_host" {
  command = apply

  variables {
    running   = true
    arguments = { epochs = "30" }
    bundle = {
      bucket = "dogbreed-test-artifacts"
      key    = "code/training.tar.gz"
      uri    = "s3://dogbreed-test-artifacts/code/training.tar.gz"
      sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    }
  }

  assert {
    condition     = output.instance_id != run.the_host_is_closed_and_encrypted.instance_id
    error_message = "A setting that somebody has changed does not reach the host."
  }
}

run "a_gpu_type_gets_the_newest_deep_learning_image_without_being_replaced_by_the_next" {
  command = apply

  assert {
    condition     = aws_launch_template.trainer.image_id == "resolve:ssm:/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.8-ubuntu-24.04/latest/ami-id"
    error_message = "The image is not looked up by EC2 at launch: a new image would change the template and replace the host."
  }
  assert {
    condition     = aws_launch_template.trainer.block_device_mappings[0].device_name == "/dev/sda1"
    error_message = "The volume's size would be set on another device than Ubuntu's root."
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.trainer.user_data), "\n--device=cuda\n")
    error_message = "A GPU that cannot be used would go unnoticed."
  }
}

run "a_cpu_type_gets_plain_amazon_linux" {
  command = apply

  variables {
    instance_type = "m7i-flex.large"
  }

  assert {
    condition     = aws_launch_template.trainer.image_id == "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64" && aws_launch_template.trainer.block_device_mappings[0].device_name == "/dev/xvda"
    error_message = "A host without a GPU gets a GPU image."
  }
  assert {
    condition     = !strcontains(base64decode(aws_launch_template.trainer.user_data), "--device") && strcontains(base64decode(aws_launch_template.trainer.user_data), "--index-url 'https://download.pytorch.org/whl/cpu' torch")
    error_message = "A host without a GPU is told to use one, or where to get PyTorch is missing."
  }
}

run "t2_cannot_be_ebs_optimized" {
  command = apply

  variables {
    instance_type = "t2.xlarge"
  }

  assert {
    condition     = aws_launch_template.trainer.ebs_optimized == null
    error_message = "EC2 refuses EBS optimization for t2."
  }
}

run "a_pinned_image_is_taken_with_its_root_device" {
  command = apply

  variables {
    ami_id = "ami-0123456789abcdef0"
  }

  assert {
    condition     = aws_launch_template.trainer.image_id == "ami-0123456789abcdef0" && aws_launch_template.trainer.block_device_mappings[0].device_name == "/dev/xvdb"
    error_message = "The pinned image or its root device is not taken."
  }
}

run "an_image_that_does_not_exist_is_said_at_plan_time" {
  command = plan

  variables {
    ami_id = "ami-0fffffffffffffff0"
  }
  override_data {
    target = data.aws_ami_ids.pinned
    values = { ids = [] }
  }

  expect_failures = [aws_launch_template.trainer]
}

run "an_image_for_arm_is_said_at_plan_time" {
  command = plan

  variables {
    ami_id = "ami-0123456789abcdef0"
  }
  override_data {
    target = data.aws_ami.pinned
    values = { architecture = "arm64", root_device_name = "/dev/xvda", block_device_mappings = [] }
  }

  expect_failures = [aws_launch_template.trainer]
}

run "an_image_larger_than_the_volume_is_said_at_plan_time" {
  command = plan

  variables {
    ami_id    = "ami-0123456789abcdef0"
    volume_gb = 49
  }

  expect_failures = [aws_launch_template.trainer]
}

run "user_data_over_16_kb_is_said_at_plan_time" {
  command = plan

  variables {
    arguments = { weights = join("", [for i in range(500) : "s3://dogbreed-test-data/weights/"]) }
  }

  expect_failures = [aws_launch_template.trainer]
}

run "no_default_vpc_is_said_at_plan_time" {
  command = plan

  override_data {
    target = data.aws_vpcs.default
    values = { ids = [] }
  }

  expect_failures = [aws_launch_template.trainer]
}

run "a_private_network_brings_its_own_groups" {
  command = apply

  variables {
    running = true
    network = { vpc_id = "vpc-0net", subnet_ids = ["subnet-a", "subnet-b"], security_group_ids = ["sg-0net"] }
  }

  assert {
    condition     = aws_instance.trainer[0].subnet_id == "subnet-b" && aws_launch_template.trainer.vpc_security_group_ids == toset(["sg-0net"]) && length(aws_security_group.trainer) == 0
    error_message = "The host is not in the network it was given, or opens one of its own."
  }
}

run "a_zone_that_has_the_type_is_looked_for" {
  command = plan

  variables {
    running = true
    network = { vpc_id = "vpc-0net", subnet_ids = ["subnet-a", "subnet-b"], security_group_ids = ["sg-0net"] }
  }

  assert {
    condition = { for f in data.aws_subnets.fitting[0].filter : f.name => f.values } == {
      subnet-id         = toset(["subnet-a", "subnet-b"])
      availability-zone = toset(["eu-central-1b"])
    }
    error_message = "The host could be sent to a zone without its type, or out of its network."
  }
}

run "a_region_without_the_type_is_said_at_plan_time" {
  command = plan

  variables {
    running = true
    network = { vpc_id = "vpc-0net", subnet_ids = ["subnet-a"], security_group_ids = ["sg-0net"] }
  }
  override_data {
    target = data.aws_ec2_instance_type_offerings.zones
    values = { locations = [] }
  }

  expect_failures = [data.aws_ec2_instance_type_offerings.zones]
}

run "a_network_without_a_fitting_zone_is_said_at_plan_time" {
  command = plan

  variables {
    running = true
    network = { vpc_id = "vpc-0net", subnet_ids = ["subnet-a"], security_group_ids = ["sg-0net"] }
  }
  override_data {
    target = data.aws_subnets.fitting
    values = { ids = [] }
  }

  expect_failures = [data.aws_subnets.fitting]
}

run "spot_hosts_stop_and_come_back" {
  command = apply

  variables {
    spot = true
  }

  assert {
    condition     = aws_launch_template.trainer.instance_market_options[0].spot_options[0].spot_instance_type == "persistent" && aws_launch_template.trainer.instance_market_options[0].spot_options[0].instance_interruption_behavior == "stop"
    error_message = "An interruption would terminate the host with its checkpoint."
  }
  assert {
    condition     = aws_kms_grant.spot[0].grantee_principal == "arn:aws:iam::123456789012:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot" && aws_kms_grant.spot[0].key_id == var.kms_key_arn
    error_message = "AWS could not open the encrypted volume to start the host again."
  }
  assert {
    condition     = contains(aws_launch_template.trainer.tag_specifications[*].resource_type, "spot-instances-request")
    error_message = "The spot request has no tags."
  }
}

run "on_demand_hosts_need_nothing_of_spot" {
  command = apply

  assert {
    condition     = length(aws_launch_template.trainer.instance_market_options) == 0 && length(aws_kms_grant.spot) == 0
    error_message = "An on-demand host is launched as spot, or the spot role may use the key."
  }
}

run "spot_without_its_role_is_said_at_plan_time" {
  command = plan

  variables {
    spot = true
  }
  override_data {
    target = data.aws_iam_roles.spot
    values = { arns = [] }
  }

  expect_failures = [aws_kms_grant.spot]
}

run "the_role_may_do_what_the_training_does_and_nothing_else" {
  command = apply

  variables {
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
    data_url                 = "s3://dogbreed-test-data/sets/dogs/"
  }

  assert {
    condition     = aws_iam_role.trainer.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary"
    error_message = "The permissions boundary is not on the role."
  }
  assert {
    condition = jsondecode(aws_iam_role.trainer.assume_role_policy).Statement[0].Principal == { Service = "ec2.amazonaws.com" } && jsondecode(aws_iam_role.trainer.assume_role_policy).Statement[0].Condition == {
      StringEqualsIfExists = { "aws:SourceAccount" = "123456789012" }
    }
    error_message = "The role is not trusted by EC2 of this account alone."
  }
  assert {
    condition = jsonencode({
      for s in jsondecode(aws_iam_role_policy.trainer.policy).Statement : s.Sid => {
        may = sort(flatten([s.Action])), on = sort(flatten([s.Resource])), when = jsonencode(try(s.Condition, null))
      }
      }) == jsonencode({
      ReadBundle   = { may = ["s3:GetObject"], on = ["arn:aws:s3:::dogbreed-test-artifacts/code/training.tar.gz"], when = "null" }
      ReadPictures = { may = ["s3:GetObject"], on = ["arn:aws:s3:::dogbreed-test-data/sets/dogs", "arn:aws:s3:::dogbreed-test-data/sets/dogs/*"], when = "null" }
      ListPictures = {
        may  = ["s3:ListBucket"], on = ["arn:aws:s3:::dogbreed-test-data"]
        when = jsonencode({ StringLike = { "s3:prefix" = "sets/dogs/*" } })
      }
      KeepResultsAndCheckpoints = {
        may = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"], when = "null"
        on  = ["arn:aws:s3:::dogbreed-test-artifacts/checkpoints/ec2/dogbreed-test/*", "arn:aws:s3:::dogbreed-test-artifacts/output/ec2/dogbreed-test/*"]
      }
      ListResultsAndCheckpoints = {
        may  = ["s3:ListBucket"], on = ["arn:aws:s3:::dogbreed-test-artifacts"]
        when = jsonencode({ StringLike = { "s3:prefix" = ["output/ec2/dogbreed-test/*", "checkpoints/ec2/dogbreed-test/*"] } })
      }
      UseKeyThroughS3 = {
        may  = ["kms:Decrypt", "kms:GenerateDataKey"], on = ["arn:aws:kms:eu-central-1:123456789012:key/11111111-1111-1111-1111-111111111111"]
        when = jsonencode({ StringEquals = { "kms:ViaService" = "s3.eu-central-1.amazonaws.com" } })
      }
      WriteLogs     = { may = ["logs:CreateLogStream", "logs:PutLogEvents"], on = ["arn:aws:logs:eu-central-1:123456789012:log-group:/dogbreed-test/trainer:*"], when = "null" }
      OfferSessions = { may = ["ssm:UpdateInstanceInformation"], on = ["arn:aws:ec2:eu-central-1:123456789012:instance/*"], when = "null" }
      # The one statement on "*": no action of ssmmessages knows resources.
      CarrySessions = {
        may = ["ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel"]
        on  = ["*"], when = "null"
      }
    })
    error_message = "The host's role has other rights than this list."
  }
}

run "settings_and_limits_reach_the_host" {
  command = apply

  variables {
    max_hours = 2
    data_url  = "s3://dogbreed-test-data/dogImages.zip"
    arguments = { solver = "adamw", learning-rate = "0.01", device = "auto" }
  }

  assert {
    condition     = split("\n", base64decode(aws_launch_template.trainer.user_data))[3] == "shutdown -P +120"
    error_message = "The first command is not the time limit."
  }
  assert {
    condition = alltrue([for line in [
      "RuntimeMaxSec=6300\\n", "\n--data-url=s3://dogbreed-test-data/dogImages.zip\n", "\n--solver=adamw\n", "\n--learning-rate=0.01\n", "\n--device=auto\n",
      "\n--output-url=s3://dogbreed-test-artifacts/output/ec2/dogbreed-test\n", "\n--checkpoint-url=s3://dogbreed-test-artifacts/checkpoints/ec2/dogbreed-test\n",
      "\n--log-group=/dogbreed-test/trainer\n", "echo '2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881  bundle.tar.gz' | sha256sum --check",
    ] : strcontains(base64decode(aws_launch_template.trainer.user_data), line)])
    error_message = "A setting, address, limit or checksum does not reach the host."
  }
}

run "graviton_is_refused" {
  command = plan
  variables {
    instance_type = "g5g.xlarge"
  }
  expect_failures = [var.instance_type]
}

run "an_unsupported_accelerator_is_refused" {
  command = plan
  variables {
    instance_type = "p3.2xlarge"
  }
  expect_failures = [var.instance_type]
}

run "a_cpu_host_cannot_install_pytorch_in_a_private_network" {
  command = plan
  variables {
    instance_type = "m6i.large"
    network       = { vpc_id = "vpc-0net", subnet_ids = ["subnet-a"], security_group_ids = ["sg-0net"] }
  }
  expect_failures = [var.instance_type]
}

run "bad_values_are_refused_with_their_fix" {
  command = plan
  variables {
    prefix             = "Dogs"
    volume_gb          = 44
    max_hours          = 0.5
    ami_id             = "latest"
    ami_owners         = ["somebody"]
    torch_index_url    = "http://download.pytorch.org/whl/cpu"
    data_url           = "s3://another-bucket/dogImages"
    arguments          = { "--epochs" = "3" }
    log_retention_days = 100
  }
  expect_failures = [
    var.prefix, var.volume_gb, var.max_hours, var.ami_id, var.ami_owners, var.torch_index_url, var.data_url, var.arguments, var.log_retention_days,
  ]
}

run "a_setting_is_one_line" {
  command = plan
  variables {
    arguments = { epochs = "3\n--output-url=s3://elsewhere" }
  }
  expect_failures = [var.arguments]
}
