mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" { defaults = { account_id = "123456789012" } }
  mock_data "aws_partition" { defaults = { partition = "aws" } }
  mock_data "aws_region" { defaults = { name = "eu-central-1" } }
  mock_data "aws_availability_zones" { defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] } }
  mock_data "aws_vpc_endpoint_service" {
    defaults = {
      availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
      service_name       = "com.amazonaws.eu-central-1.mocked"
    }
  }
  mock_resource "aws_cloudwatch_log_group" { defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/vpc/dogbreed-dev/flow" } }
  mock_resource "aws_iam_role" { defaults = { arn = "arn:aws:iam::123456789012:role/dogbreed-dev-flow-logs" } }
}

variables {
  prefix      = "dogbreed-dev"
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  bucket_arns = ["arn:aws:s3:::dogbreed-dev-data-123456789012-eu-central-1"]
}

run "two_private_subnets_without_a_way_out" {
  command = plan

  assert {
    condition     = { for subnet in aws_subnet.private : subnet.availability_zone => subnet.cidr_block } == { eu-central-1a = "10.20.0.0/18", eu-central-1b = "10.20.64.0/18" }
    error_message = "One subnet per zone, a quarter of the network each."
  }
  assert {
    condition     = !anytrue([for subnet in aws_subnet.private : subnet.map_public_ip_on_launch])
    error_message = "Nothing gets a public address."
  }
  assert {
    condition     = aws_vpc.this.enable_dns_hostnames && aws_vpc.this.enable_dns_support
    error_message = "Without both, the endpoints' private names do not resolve."
  }
  assert {
    condition     = endswith(aws_default_security_group.closed.tags.Name, "-default-closed")
    error_message = "By the end of this name, bootstrap's role for CI may tag the group."
  }
}

run "three_zones" {
  command = plan

  variables {
    cidr  = "192.168.7.0/24"
    zones = 3
  }

  assert {
    condition     = aws_subnet.private[*].cidr_block == ["192.168.7.0/26", "192.168.7.64/26", "192.168.7.128/26"]
    error_message = "The smallest network still has room for the endpoints and some hosts in each of three zones."
  }
}

run "a_zone_that_lacks_a_service_is_passed_over" {
  command = plan

  override_data {
    target = data.aws_vpc_endpoint_service.interface["sagemaker.api"]
    values = { availability_zones = ["eu-central-1b", "eu-central-1c"], service_name = "com.amazonaws.eu-central-1.sagemaker.api" }
  }

  assert {
    condition     = aws_subnet.private[*].availability_zone == ["eu-central-1b", "eu-central-1c"]
    error_message = "An endpoint cannot be made in a zone that its service is not in."
  }
  assert {
    condition     = aws_vpc_endpoint.interface["sagemaker.api"].service_name == "com.amazonaws.eu-central-1.sagemaker.api"
    error_message = "The service's name is asked of AWS: it differs between partitions."
  }
}

run "too_few_zones_are_refused_in_words" {
  command = plan

  override_data {
    target = data.aws_vpc_endpoint_service.interface["logs"]
    values = { availability_zones = ["eu-central-1a"] }
  }

  expect_failures = [aws_vpc.this]
}

run "endpoints_admit_this_account_only" {
  command = plan

  assert {
    condition = keys(aws_vpc_endpoint.interface) == [
      "ecr.api", "logs", "sagemaker.api", "sagemaker.featurestore-runtime", "sagemaker.runtime", "ssm", "ssmmessages", "sts",
    ]
    error_message = "Each endpoint is billed by the hour in every zone: a further one needs a caller."
  }
  assert {
    condition = alltrue([
      for endpoint in aws_vpc_endpoint.interface :
      alltrue([for statement in jsondecode(endpoint.policy).Statement : statement.Condition == { StringEquals = { "aws:PrincipalAccount" = "123456789012" } }])
    ])
    error_message = "Credentials of another account must not work through the endpoints."
  }
  assert {
    condition = !anytrue(flatten([
      for endpoint in concat(values(aws_vpc_endpoint.interface), [aws_vpc_endpoint.s3]) :
      [for statement in jsondecode(endpoint.policy).Statement : [for action in flatten([statement.Action]) : action == "*" || endswith(action, ":*")]]
    ]))
    error_message = "Endpoint policies name the calls that are made."
  }
  assert {
    condition     = !anytrue([for action in flatten(jsondecode(aws_vpc_endpoint.interface["sagemaker.api"].policy).Statement[*].Action) : can(regex("Endpoint|Notebook.*Url|DeleteModel", action))])
    error_message = "The live endpoint is changed by Terraform, never from inside the network."
  }
}

run "s3_opens_the_named_buckets_only" {
  command = plan

  assert {
    condition = sort(distinct(flatten([for statement in jsondecode(aws_vpc_endpoint.s3.policy).Statement : statement.Resource if can(statement.Condition)]))) == tolist([
      "arn:aws:s3:::dogbreed-dev-data-123456789012-eu-central-1",
      "arn:aws:s3:::dogbreed-dev-data-123456789012-eu-central-1/*",
    ])
    error_message = "This account's principals reach the named buckets."
  }
  assert {
    condition = [for statement in jsondecode(aws_vpc_endpoint.s3.policy).Statement : [statement.Action, statement.Resource] if !can(statement.Condition)] == [[
      "s3:GetObject",
      ["arn:aws:s3:::prod-eu-central-1-starport-layer-bucket/*", "arn:aws:s3:::al2023-repos-eu-central-1-de612dc2/*"],
    ]]
    error_message = "Everybody else reads AWS's own image layers and packages, and writes nothing."
  }
}

run "every_connection_is_recorded" {
  command = plan

  variables {
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
    flow_log_retention_days  = 30
  }

  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_cloudwatch_log_group.flow.kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.flow.retention_in_days == 30
    error_message = "Accepted and refused connections go to an encrypted log that is deleted in the end."
  }
  assert {
    condition     = aws_iam_role.flow_logs.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary"
    error_message = "The boundary caps every role."
  }
  assert {
    condition = one(jsondecode(aws_iam_role.flow_logs.assume_role_policy).Statement) == {
      Sid       = "FlowLogs"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = "123456789012" }
        ArnLike      = { "aws:SourceArn" = "arn:aws:ec2:eu-central-1:123456789012:vpc-flow-log/*" }
      }
    }
    error_message = "The role is for this account's flow logs."
  }
  assert {
    condition     = alltrue([for resource in one(jsondecode(aws_iam_role_policy.flow_logs.policy).Statement).Resource : startswith(resource, aws_cloudwatch_log_group.flow.arn)])
    error_message = "The role writes to its own log group."
  }
}

run "inputs_are_checked" {
  command = plan

  variables {
    prefix                  = "x"
    cidr                    = "10.20.0.0/8"
    zones                   = 1
    bucket_arns             = ["dogbreed-dev-data"]
    interface_services      = ["sagemaker"]
    flow_log_retention_days = 100
  }

  expect_failures = [
    var.prefix,
    var.cidr,
    var.zones,
    var.bucket_arns,
    var.interface_services,
    var.flow_log_retention_days,
  ]
}

run "addresses_begin_where_their_range_does" {
  command = plan
  variables { cidr = "10.20.7.0/16" }
  expect_failures = [var.cidr]
}

run "addresses_are_private_and_not_dockers" {
  command = plan
  variables { cidr = "172.17.0.0/16" }
  expect_failures = [var.cidr]
}
