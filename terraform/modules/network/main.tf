# A network without a way out: no internet gateway, no NAT. What runs in it reaches the named buckets, the named AWS
# services, and itself.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:The subnets ignore later changes of their zone; naming zones here would tie the module to one account.
  state = "available"

  # Local zones have neither SageMaker nor interface endpoints.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name

  # An old zone such as use1-az3 lacks many services, and which letter it has differs from account to account.
  zones = sort(setintersection(
    data.aws_availability_zones.available.names,
    [for service in data.aws_vpc_endpoint_service.interface : service.availability_zones]...
  ))
}

resource "aws_vpc" "this" {
  cidr_block = var.cidr
  tags       = merge(var.tags, { Name = var.prefix })

  # Both for the endpoints: their private names must resolve to addresses in here.
  enable_dns_hostnames = true
  enable_dns_support   = true

  lifecycle {
    precondition {
      condition     = length(local.zones) >= var.zones
      error_message = "Only ${length(local.zones)} zones of ${local.region} (${join(", ", local.zones)}) have all of interface_services. Lower zones or leave services out."
    }
  }
}

resource "aws_subnet" "private" {
  count                   = var.zones
  vpc_id                  = aws_vpc.this.id
  availability_zone       = local.zones[count.index]
  cidr_block              = cidrsubnet(var.cidr, 2, count.index)
  map_public_ip_on_launch = false
  tags                    = merge(var.tags, { Name = "${var.prefix}-private-${count.index + 1}" })

  # Chosen once: a zone that AWS adds later must not replace subnets with a running endpoint in them.
  lifecycle {
    ignore_changes = [availability_zone]
  }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${var.prefix}-private" })
}

resource "aws_route_table_association" "private" {
  count          = var.zones
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private.id
}
