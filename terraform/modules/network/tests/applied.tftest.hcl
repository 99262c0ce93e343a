# Apart, because sets of ids and outputs are only known after an apply, and a provider that is overridden while planning cannot apply.
mock_provider "aws" {
  mock_data "aws_caller_identity" { defaults = { account_id = "123456789012" } }
  mock_data "aws_partition" { defaults = { partition = "aws" } }
  mock_data "aws_region" { defaults = { name = "eu-central-1" } }
  mock_data "aws_availability_zones" { defaults = { names = ["eu-central-1a", "eu-central-1b"] } }
  mock_data "aws_vpc_endpoint_service" { defaults = { availability_zones = ["eu-central-1a", "eu-central-1b"] } }
  mock_resource "aws_vpc_endpoint" { defaults = { prefix_list_id = "pl-6ea54007" } }
  mock_resource "aws_cloudwatch_log_group" { defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/vpc/dogbreed-dev/flow" } }
  mock_resource "aws_iam_role" { defaults = { arn = "arn:aws:iam::123456789012:role/dogbreed-dev-flow-logs" } }
}

variables {
  prefix      = "dogbreed-dev"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  bucket_arns = ["arn:aws:s3:::dogbreed-dev-data-123456789012-eu-central-1"]
}

run "connected_and_handed_over_as_every_module_takes" {
  assert {
    condition     = output.network == { vpc_id = aws_vpc.this.id, subnet_ids = aws_subnet.private[*].id, security_group_ids = [aws_security_group.workload.id] }
    error_message = "Workloads get the private subnets and their own group, not the endpoints' group."
  }
  assert {
    condition     = output.s3_endpoint_id == aws_vpc_endpoint.s3.id
    error_message = "The gateway's id is for bucket policies elsewhere."
  }
  assert {
    condition = alltrue([
      for endpoint in aws_vpc_endpoint.interface :
      endpoint.private_dns_enabled && endpoint.subnet_ids == toset(aws_subnet.private[*].id) && endpoint.security_group_ids == toset([aws_security_group.endpoints.id])
    ])
    error_message = "Endpoints answer under the service's usual name, in every subnet, behind their own group."
  }
  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && aws_vpc_endpoint.s3.route_table_ids == toset([aws_route_table.private.id])
    error_message = "S3 is reached through the free gateway, from the private subnets."
  }
}

run "nothing_comes_in_from_outside" {
  assert {
    condition = alltrue([
      for rule in [aws_vpc_security_group_ingress_rule.workload_from_itself, aws_vpc_security_group_ingress_rule.endpoints_from_workload] :
      rule.referenced_security_group_id == aws_security_group.workload.id && rule.cidr_ipv4 == null && rule.cidr_ipv6 == null
    ])
    error_message = "Only the workloads may connect to anything."
  }
  assert {
    condition = alltrue([
      for rule in [
        aws_vpc_security_group_egress_rule.workload_to_endpoints,
        aws_vpc_security_group_egress_rule.workload_to_itself,
        aws_vpc_security_group_egress_rule.workload_to_s3,
      ] : rule.security_group_id == aws_security_group.workload.id && rule.cidr_ipv4 == null && rule.cidr_ipv6 == null
    ])
    error_message = "The workloads connect to themselves, the endpoints and S3, never to an address."
  }
  assert {
    condition     = aws_vpc_security_group_egress_rule.workload_to_s3.prefix_list_id == "pl-6ea54007" && aws_vpc_security_group_egress_rule.workload_to_s3.to_port == 443
    error_message = "S3 is reached by its prefix list, encrypted."
  }
}
