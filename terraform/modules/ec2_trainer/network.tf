# Without a private network: the default VPC, and nothing but HTTPS to the outside.
data "aws_vpcs" "default" {
  count = var.network == null ? 1 : 0

  filter {
    name   = "is-default"
    values = ["true"]
  }
}

resource "aws_security_group" "trainer" {
  count = var.network == null ? 1 : 0

  name        = local.name
  description = "Training host of ${var.prefix}: no way in, HTTPS out. Sessions come through Systems Manager."
  vpc_id      = one(data.aws_vpcs.default[0].ids)
  tags        = local.tags
}

resource "aws_vpc_security_group_egress_rule" "https" {
  count = var.network == null ? 1 : 0

  security_group_id = aws_security_group.trainer[0].id
  description       = "S3, logs, sessions, and PyTorch for hosts without a GPU: their addresses change."
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
  tags              = local.tags
}
