# No rule names an address: workloads reach each other, the interface endpoints and S3. The names of AWS's services are
# resolved by the network's own resolver, which security groups do not filter.

resource "aws_security_group" "workload" {
  #checkov:skip=CKV2_AWS_5:Attached to jobs, endpoint, notebook, function and host, which other modules and the Python side make.
  name        = "${var.prefix}-workload"
  description = "Jobs, endpoint, notebook and training host of ${var.prefix}."
  vpc_id      = aws_vpc.this.id
  tags        = merge(var.tags, { Name = "${var.prefix}-workload" })

  # A group cannot be deleted while an interface uses it: a change of name needs the new one first.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "endpoints" {
  name        = "${var.prefix}-endpoints"
  description = "Interface endpoints of ${var.prefix}."
  vpc_id      = aws_vpc.this.id
  tags        = merge(var.tags, { Name = "${var.prefix}-endpoints" })

  lifecycle {
    create_before_destroy = true
  }
}

# Every new network has this group, open within itself; managing it without rules closes it. By the end of its
# name, bootstrap's role for CI may tag it, and never open it again.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id
  tags   = merge(var.tags, { Name = "${var.prefix}-default-closed" })
}

# The hosts of one job find each other on ports that PyTorch and NCCL choose as they like.
resource "aws_vpc_security_group_ingress_rule" "workload_from_itself" {
  security_group_id            = aws_security_group.workload.id
  description                  = "Between the hosts of a distributed job."
  referenced_security_group_id = aws_security_group.workload.id
  ip_protocol                  = "-1"
  tags                         = var.tags
}

resource "aws_vpc_security_group_egress_rule" "workload_to_itself" {
  security_group_id            = aws_security_group.workload.id
  description                  = "Between the hosts of a distributed job."
  referenced_security_group_id = aws_security_group.workload.id
  ip_protocol                  = "-1"
  tags                         = var.tags
}

resource "aws_vpc_security_group_egress_rule" "workload_to_endpoints" {
  security_group_id            = aws_security_group.workload.id
  description                  = "AWS services, by their interface endpoints."
  referenced_security_group_id = aws_security_group.endpoints.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  tags                         = var.tags
}

resource "aws_vpc_security_group_egress_rule" "workload_to_s3" {
  security_group_id = aws_security_group.workload.id
  description       = "S3, by its gateway endpoint."
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "endpoints_from_workload" {
  security_group_id            = aws_security_group.endpoints.id
  description                  = "Calls of the workloads."
  referenced_security_group_id = aws_security_group.workload.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  tags                         = var.tags
}
