data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_default_tags" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name
  name       = "${var.prefix}-trainer"

  # What the image's driver supports ("supported_ec2_instances" in the release notes of the Deep Learning AMI). Older
  # NVIDIA families (p2, p3, g3) need another driver, and AMD's (g4ad) or AWS's own chips (inf, trn) another PyTorch.
  gpu_families = ["g4dn", "g5", "g6", "g6e", "gr6", "p4d", "p4de", "p5", "p5e", "p5en", "p6-b200"]
  cpu_types    = "^[cdhimrtxz][0-9]+[a-fh-z]*(-flex)?\\.[a-z0-9-]+$"
  family       = split(".", var.instance_type)[0]
  gpu          = contains(local.gpu_families, local.family)

  # Newer types are always EBS-optimized, and t2 cannot be: asking for it is an error.
  ebs_optimized = local.family == "t2" ? null : true

  # The Deep Learning image for the bundle's Python (3.12) that has the PyTorch which the package asks for (2.8): the
  # images on Ubuntu 22.04 end with PyTorch 2.7.
  image_parameter = local.gpu ? "/aws/service/deeplearning/ami/x86_64/oss-nvidia-driver-gpu-pytorch-2.8-ubuntu-24.04/latest/ami-id" : "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"

  # EC2 looks the parameter up when it launches a host. So the template does not change when AWS publishes an image, a
  # host that is training is not replaced by one, and the next host starts from the newest.
  image       = var.ami_id != null ? var.ami_id : "resolve:ssm:${local.image_parameter}"
  root_device = var.ami_id != null ? one(data.aws_ami.pinned[*].root_device_name) : local.gpu ? "/dev/sda1" : "/dev/xvda"

  data_url       = trimsuffix(coalesce(var.data_url, "s3://${var.data_bucket.name}/dogImages"), "/")
  data_key       = trimprefix(local.data_url, "s3://${var.data_bucket.name}/")
  output_key     = "output/ec2/${var.prefix}"
  checkpoint_key = "checkpoints/ec2/${var.prefix}"
  output_url     = "s3://${var.artifacts_bucket.name}/${local.output_key}"

  # A GPU that cannot be used must be an error, not a slow and expensive training on its host's few cores.
  arguments = merge(local.gpu ? { device = "cuda" } : {}, var.arguments)

  user_data = templatefile("${path.module}/../../../ec2/user_data.sh.tftpl", {
    region          = local.region
    log_group       = aws_cloudwatch_log_group.trainer.name
    bundle_uri      = var.bundle.uri
    bundle_sha256   = var.bundle.sha256
    torch_index_url = var.torch_index_url
    max_minutes     = var.max_hours * 60
    max_training_s  = var.max_hours * 3600 - 900 # time to set up before, and to upload and say why after
    service         = file("${path.module}/../../../ec2/dogbreed-train.service")
    arguments = concat([
      "--data-url=${local.data_url}",
      "--output-url=${local.output_url}",
      "--checkpoint-url=s3://${var.artifacts_bucket.name}/${local.checkpoint_key}",
    ], [for name, value in local.arguments : "--${name}=${value}"])
  })
  user_data_base64 = base64encode(local.user_data)

  tags          = merge(var.tags, { Name = local.name })
  launched_tags = merge(data.aws_default_tags.current.tags, local.tags)
}

# Filters answer with nothing where an id that does not exist would be an error that names no fix.
data "aws_ami_ids" "pinned" {
  count = var.ami_id == null ? 0 : 1

  owners             = var.ami_owners
  include_deprecated = true

  filter {
    name   = "image-id"
    values = [var.ami_id]
  }
}

data "aws_ami" "pinned" {
  count = var.ami_id == null ? 0 : length(data.aws_ami_ids.pinned[0].ids)

  owners             = var.ami_owners
  include_deprecated = true

  filter {
    name   = "image-id"
    values = [var.ami_id]
  }
}

# Group first: its retention and key are decided here, before the host writes to it.
resource "aws_cloudwatch_log_group" "trainer" {
  name              = "/${var.prefix}/trainer"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_launch_template" "trainer" {
  name                   = local.name
  description            = "Trains once, uploads the model and stops itself."
  update_default_version = true
  image_id               = local.image
  instance_type          = var.instance_type
  user_data              = local.user_data_base64
  vpc_security_group_ids = var.network != null ? var.network.security_group_ids : aws_security_group.trainer[*].id
  ebs_optimized          = local.ebs_optimized
  tags                   = local.tags

  # The host stops by shutting down: this is what makes a shutdown from inside a stop, which needs no rights.
  instance_initiated_shutdown_behavior = "stop"

  iam_instance_profile {
    arn = aws_iam_instance_profile.trainer.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  monitoring {
    enabled = true
  }

  block_device_mappings {
    device_name = local.root_device

    ebs {
      volume_type           = "gp3"
      volume_size           = var.volume_gb
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  # Persistent, for only such a host is stopped by an interruption (and started again by AWS) instead of terminated,
  # and only such a host can stop itself: a one-time host would end terminated and be made anew by the next apply.
  dynamic "instance_market_options" {
    for_each = var.spot ? [true] : []

    content {
      market_type = "spot"

      spot_options {
        spot_instance_type             = "persistent"
        instance_interruption_behavior = "stop"
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = concat(["instance", "volume", "network-interface"], var.spot ? ["spot-instances-request"] : [])

    content {
      resource_type = tag_specifications.value
      tags          = local.launched_tags
    }
  }

  lifecycle {
    precondition {
      condition     = length(local.user_data_base64) / 4 * 3 <= 16384
      error_message = "The host's user data is larger than EC2's 16 KB: shorten arguments."
    }
    precondition {
      condition     = var.ami_id == null || length(data.aws_ami.pinned) == 1
      error_message = "There is no image ${coalesce(var.ami_id, "-")} of ${join(" or ", var.ami_owners)} in ${local.region}: images have another id in each region. Correct ami_id, add its owner to ami_owners, or leave ami_id out for the newest image."
    }
    precondition {
      condition     = alltrue([for image in data.aws_ami.pinned : image.architecture == "x86_64"])
      error_message = "Image ${coalesce(var.ami_id, "-")} is not for x86_64, and the wheels in the bundle are: choose another ami_id."
    }
    precondition {
      condition     = alltrue([for size in local.image_sizes_gb : size <= var.volume_gb])
      error_message = "Image ${coalesce(var.ami_id, "-")} is larger than the volume: set volume_gb to at least ${max(0, local.image_sizes_gb...)}."
    }
    precondition {
      condition     = length(flatten(data.aws_vpcs.default[*].ids)) == length(data.aws_vpcs.default)
      error_message = "This account has no default VPC in ${local.region}: give a network, or run `aws ec2 create-default-vpc`."
    }
  }
}

locals {
  image_sizes_gb = flatten([
    for image in data.aws_ami.pinned : [
      for device in image.block_device_mappings : tonumber(lookup(device.ebs, "volume_size", 0))
      if device.device_name == image.root_device_name
    ]
  ])
}

# GPU types are not offered in every zone, and EC2 would say so minutes into an apply.
data "aws_ec2_instance_type_offerings" "zones" {
  count = var.running && var.network != null ? 1 : 0

  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [var.instance_type]
  }

  lifecycle {
    postcondition {
      condition     = length(self.locations) > 0
      error_message = "AWS offers no ${var.instance_type} in ${local.region}: choose another instance_type."
    }
  }
}

data "aws_subnets" "fitting" {
  count = var.running && var.network != null ? 1 : 0

  filter {
    name   = "subnet-id"
    values = var.network.subnet_ids
  }
  filter {
    name   = "availability-zone"
    values = data.aws_ec2_instance_type_offerings.zones[0].locations
  }

  lifecycle {
    postcondition {
      condition     = length(self.ids) > 0
      error_message = "None of the network's subnets is in a zone that offers ${var.instance_type} (${join(", ", sort(data.aws_ec2_instance_type_offerings.zones[0].locations))}): choose another instance_type, or more zones for the network."
    }
  }
}

# What a host is replaced for: what somebody has decided on. Not for another bundle: a training must not end because the
# code was edited and an apply, meant for something else, brought the edit along.
resource "terraform_data" "decisions" {
  triggers_replace = [
    var.instance_type, var.ami_id, var.spot, var.volume_gb, var.max_hours, var.torch_index_url, var.data_url, var.arguments,
    var.prefix, var.kms_key_arn, try(var.network.vpc_id, null),
  ]
}

resource "aws_instance" "trainer" {
  #checkov:skip=CKV2_AWS_41:The instance profile is in the launch template.
  #checkov:skip=CKV_AWS_8:The launch template encrypts the volume. To repeat that here, the provider would ask EC2 for the image's root device, and EC2 knows no image by its parameter (resolve:ssm).

  count = var.running ? 1 : 0

  subnet_id     = one([for subnets in data.aws_subnets.fitting : sort(subnets.ids)[0]])
  ebs_optimized = local.ebs_optimized
  monitoring    = true
  tags          = local.tags

  # As in the template; here, a plan also shows it when somebody has weakened them on the host itself.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  launch_template {
    id      = aws_launch_template.trainer.id
    version = aws_launch_template.trainer.latest_version
  }

  # A replacement gets what is ignored here: the template's newest version, with the user data in it.
  lifecycle {
    ignore_changes       = [launch_template, user_data, subnet_id]
    replace_triggered_by = [terraform_data.decisions]
  }

  # The policy must be there when the host starts, and the key be usable by whoever starts it again after an interruption.
  depends_on = [aws_iam_role_policy.trainer, aws_kms_grant.spot]
}
