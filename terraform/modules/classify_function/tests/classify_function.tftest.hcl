mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws-us-gov", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { name = "us-gov-west-1" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws-us-gov:iam::123456789012:role/dogbreed-test-classify" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws-us-gov:logs:us-gov-west-1:123456789012:log-group:/aws/lambda/dogbreed-test-classify" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws-us-gov:sqs:us-gov-west-1:123456789012:dogbreed-test-classify-failed-events" }
  }
  mock_resource "aws_lambda_function" {
    defaults = {
      arn     = "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:dogbreed-test-classify"
      version = "7"
    }
  }
  mock_resource "aws_lambda_alias" {
    defaults = { arn = "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:dogbreed-test-classify:live" }
  }
  mock_resource "aws_lambda_function_url" {
    defaults = { function_url = "https://abc.lambda-url.us-gov-west-1.on.aws/" }
  }
}

variables {
  prefix        = "dogbreed-test"
  tags          = { team = "dogs" }
  kms_key_arn   = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  package_path  = "versions.tf" # any file will do
  endpoint_name = "dogbreed-test"
  endpoint_arn  = "arn:aws-us-gov:sagemaker:us-gov-west-1:123456789012:endpoint/dogbreed-test"
}

run "by_default" {
  assert {
    condition = (
      aws_lambda_function.this.runtime == "python3.13" && aws_lambda_function.this.architectures == tolist(["arm64"]) &&
      aws_lambda_function.this.source_code_hash == filebase64sha256("versions.tf")
    )
    error_message = "The function runs the package, known by its content, on the newest runtime and the cheaper processor."
  }
  assert {
    condition     = aws_lambda_function.this.publish && aws_lambda_alias.live.function_version == "7" && length(aws_lambda_alias.live.routing_config) == 0
    error_message = "Each change publishes a version, and the alias sends everything to it."
  }
  assert {
    condition     = length(aws_lambda_function.this.vpc_config) == 0 && length(aws_iam_role_policy.network) == 0
    error_message = "The function is outside any VPC and has no right on network interfaces."
  }
  assert {
    condition = alltrue([
      for key in [aws_lambda_function.this.kms_key_arn, aws_cloudwatch_log_group.this.kms_key_id, aws_sqs_queue.failed_events.kms_master_key_id] :
      key == var.kms_key_arn
    ])
    error_message = "Environment, logs and failed events are encrypted with the key."
  }
  assert {
    condition = (
      aws_lambda_function.this.logging_config[0].log_group == "/aws/lambda/dogbreed-test-classify" &&
      aws_lambda_function.this.logging_config[0].log_format == "JSON" && aws_cloudwatch_log_group.this.retention_in_days == 365
    )
    error_message = "Logs are JSON and go to a group that expires."
  }
  assert {
    condition     = aws_lambda_function.this.tracing_config[0].mode == "Active"
    error_message = "Calls are traced."
  }
  assert {
    condition = aws_lambda_function.this.environment[0].variables == tomap({
      ENDPOINT_NAME = "dogbreed-test", FETCH_TIMEOUT_S = "8", INVOKE_TIMEOUT_S = "7", MAX_PAYLOAD_MB = "6", MAX_PICTURE_MIB = "5", PAGE = "1"
    })
    error_message = "The handler knows its endpoint and limits, shows the page behind the URL, and no address is exempt from the rule of public addresses."
  }
  assert {
    condition = (
      aws_lambda_provisioned_concurrency_config.fixed[0].provisioned_concurrent_executions == 3 &&
      aws_lambda_provisioned_concurrency_config.fixed[0].function_name == "dogbreed-test-classify" &&
      aws_lambda_provisioned_concurrency_config.fixed[0].qualifier == "live" &&
      length(aws_lambda_provisioned_concurrency_config.scaled) == 0 && length(aws_appautoscaling_target.provisioned_concurrency) == 0
    )
    error_message = "Three environments of the alias are always started, and nothing changes that."
  }
  assert {
    condition     = aws_lambda_function.this.reserved_concurrent_executions == 20
    error_message = "No more than 20 calls run at once."
  }
  assert {
    condition     = aws_lambda_function_url.live[0].authorization_type == "AWS_IAM" && aws_lambda_function_url.live[0].qualifier == "live" && length(aws_lambda_function_url.live[0].cors) == 0
    error_message = "The URL of the alias takes signed requests only, and none from other sites' scripts."
  }
  assert {
    condition     = length(aws_lambda_permission.public_url) == 0 && length(aws_cloudcontrolapi_resource.public_invoke) == 0
    error_message = "Nobody may call it without a policy of their own."
  }
  assert {
    condition = (
      aws_lambda_function_event_invoke_config.live.qualifier == "live" && aws_lambda_function_event_invoke_config.live.maximum_retry_attempts == 2 &&
      aws_lambda_function_event_invoke_config.live.destination_config[0].on_failure[0].destination == aws_sqs_queue.failed_events.arn &&
      length(aws_lambda_function.this.dead_letter_config) == 0
    )
    error_message = "Failed events of the alias go to the queue once, with the reason."
  }
  assert {
    condition     = aws_sqs_queue.failed_events.message_retention_seconds == 1209600
    error_message = "Failed events are kept for 14 days."
  }
  assert {
    condition = alltrue([
      for resource in [aws_lambda_function.this, aws_cloudwatch_log_group.this, aws_iam_role.this, aws_sqs_queue.failed_events] : resource.tags == var.tags
    ])
    error_message = "Everything that can be tagged is tagged."
  }
  assert {
    condition = (
      output.name == "dogbreed-test-classify" && output.alias_name == "live" && endswith(output.alias_arn, ":live") &&
      output.url == "https://abc.lambda-url.us-gov-west-1.on.aws/" && output.dead_letter_queue_name == "dogbreed-test-classify-failed-events" &&
      output.watched.failures_metric == { namespace = "dogbreed-test", name = "ClassifyFailures" }
    )
    error_message = "The outputs name what callers and alarms use."
  }
}

run "least_privilege" {
  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement == [{
      Sid       = "LambdaOfThisAccount"
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    }]
    error_message = "Only Lambda, for this account, may take the role."
  }
  assert {
    condition = {
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Sid => [statement.Action, statement.Resource]
      } == {
      InvokeThisEndpoint  = ["sagemaker:InvokeEndpoint", var.endpoint_arn]
      WriteLogs           = [["logs:CreateLogStream", "logs:PutLogEvents"], "${aws_cloudwatch_log_group.this.arn}:log-stream:*"]
      SendFailedEvents    = ["sqs:SendMessage", aws_sqs_queue.failed_events.arn]
      EncryptFailedEvents = [["kms:GenerateDataKey", "kms:Decrypt"], var.kms_key_arn]
      ReadOwnEnvironment  = ["kms:Decrypt", var.kms_key_arn]
      SendTraces          = [["xray:PutTraceSegments", "xray:PutTelemetryRecords"], "*"]
    }
    error_message = "The role may do exactly this; only traces, which have no resource-level permission, are allowed on \"*\"."
  }
  assert {
    condition = {
      for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Sid => statement.Condition if can(statement.Condition)
      } == {
      EncryptFailedEvents = { StringEquals = { "kms:ViaService" = "sqs.us-gov-west-1.amazonaws.com" } }
      ReadOwnEnvironment = { StringLike = { "kms:EncryptionContext:aws:lambda:FunctionArn" = [
        "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:dogbreed-test-classify",
        "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:dogbreed-test-classify:*",
      ] } }
    }
    error_message = "The key serves the queue and the function's own environment, nothing else."
  }
  assert {
    condition = jsondecode(aws_sqs_queue_policy.failed_events.policy).Statement == [{
      Sid       = "OnlyEncryptedConnections"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = aws_sqs_queue.failed_events.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
    error_message = "The queue refuses connections without TLS and allows nothing by itself."
  }
}

run "in_a_network" {
  variables {
    network                  = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], security_group_ids = ["sg-1"] }
    permissions_boundary_arn = "arn:aws-us-gov:iam::123456789012:policy/boundary"
  }

  assert {
    condition = (
      toset(aws_lambda_function.this.vpc_config[0].subnet_ids) == toset(["subnet-1", "subnet-2"]) &&
      toset(aws_lambda_function.this.vpc_config[0].security_group_ids) == toset(["sg-1"])
    )
    error_message = "The function is in the network's subnets and security group."
  }
  assert {
    condition = {
      for statement in jsondecode(aws_iam_role_policy.network[0].policy).Statement : statement.Sid => statement.Resource if statement.Effect == "Allow"
      } == {
      CreateInterfaces = [
        for resource in ["network-interface/*", "subnet/subnet-1", "subnet/subnet-2", "security-group/sg-1"] :
        "arn:aws-us-gov:ec2:us-gov-west-1:123456789012:${resource}"
      ]
      ManageInterfaces = "arn:aws-us-gov:ec2:us-gov-west-1:123456789012:network-interface/*"
      FindInterfaces   = "*"
    }
    error_message = "Interfaces may be made in these subnets only; \"*\" is for Describe actions, which take nothing else."
  }
  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_role_policy.network[0].policy).Statement : statement.Action if statement.Effect == "Allow"
      ])) == toset(flatten([
      for statement in jsondecode(aws_iam_role_policy.network[0].policy).Statement : statement.Action if statement.Effect == "Deny" &&
      try(statement.Condition, null) == { ArnEquals = { "lambda:SourceFunctionArn" = "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:dogbreed-test-classify" } }
    ]))
    error_message = "Whatever Lambda may do to network interfaces is denied to the function's code."
  }
  assert {
    condition     = aws_iam_role.this.permissions_boundary == "arn:aws-us-gov:iam::123456789012:policy/boundary"
    error_message = "The boundary caps the role."
  }
}

run "scaled_provisioned_concurrency" {
  variables {
    provisioned_concurrency     = 2
    provisioned_concurrency_max = 20
  }

  assert {
    condition     = length(aws_lambda_provisioned_concurrency_config.fixed) == 0 && aws_lambda_provisioned_concurrency_config.scaled[0].provisioned_concurrent_executions == 2
    error_message = "It begins with the minimum."
  }
  assert {
    condition = (
      aws_appautoscaling_target.provisioned_concurrency[0].resource_id == "function:dogbreed-test-classify:live" &&
      aws_appautoscaling_target.provisioned_concurrency[0].min_capacity == 2 && aws_appautoscaling_target.provisioned_concurrency[0].max_capacity == 20 &&
      aws_appautoscaling_target.provisioned_concurrency[0].tags == var.tags
    )
    error_message = "The alias is scaled between the two numbers."
  }
  assert {
    condition = (
      aws_appautoscaling_policy.provisioned_concurrency[0].policy_type == "TargetTrackingScaling" &&
      aws_appautoscaling_policy.provisioned_concurrency[0].target_tracking_scaling_policy_configuration[0].target_value == 0.7 &&
      aws_appautoscaling_policy.provisioned_concurrency[0].target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type == "LambdaProvisionedConcurrencyUtilization"
    )
    error_message = "It follows the use of the environments."
  }
}

run "the_number_belongs_to_auto_scaling" {
  variables {
    provisioned_concurrency     = 4
    provisioned_concurrency_max = 20
  }

  assert {
    condition     = aws_lambda_provisioned_concurrency_config.scaled[0].provisioned_concurrent_executions == 2 && aws_appautoscaling_target.provisioned_concurrency[0].min_capacity == 4
    error_message = "A new minimum changes the target, not the number that auto-scaling set."
  }
}

run "without_url_concurrency_or_cap" {
  variables {
    provisioned_concurrency = 0
    reserved_concurrency    = -1
    url_auth                = "OFF"
    timeout_s               = 60
    payload_max_mb          = 4
    fetch_exempt_hosts      = ["127.0.0.1:8000", "pictures.test:443"]
  }

  assert {
    condition     = length(aws_lambda_provisioned_concurrency_config.fixed) + length(aws_lambda_provisioned_concurrency_config.scaled) == 0 && aws_lambda_function.this.reserved_concurrent_executions == -1
    error_message = "No concurrency is provisioned or reserved."
  }
  assert {
    condition     = length(aws_lambda_function_url.live) == 0 && output.url == null
    error_message = "There is no URL."
  }
  assert {
    condition     = !contains(keys(aws_lambda_function.this.environment[0].variables), "PAGE")
    error_message = "Without a URL there is no page."
  }
  assert {
    condition = (
      aws_lambda_function.this.environment[0].variables["FETCH_EXEMPT_HOSTS"] == "127.0.0.1:8000,pictures.test:443" &&
      aws_lambda_function.this.environment[0].variables["INVOKE_TIMEOUT_S"] == "23" &&
      aws_lambda_function.this.environment[0].variables["MAX_PAYLOAD_MB"] == "4"
    )
    error_message = "The handler knows the exempt hosts and what the endpoint takes, and has more time for it when there is more."
  }
}

run "page_behind_an_api_of_ones_own" {
  variables {
    url_auth = "OFF"
    page     = true
  }

  assert {
    condition     = aws_lambda_function.this.environment[0].variables["PAGE"] == "1" && length(aws_lambda_function_url.live) == 0
    error_message = "The page can be had without a URL."
  }
}

run "url_without_page" {
  variables {
    page = false
  }

  assert {
    condition     = !contains(keys(aws_lambda_function.this.environment[0].variables), "PAGE") && length(aws_lambda_function_url.live) == 1
    error_message = "The URL can be had without the page."
  }
}

run "public_url" {
  variables {
    url_auth = "NONE"
  }

  assert {
    condition     = aws_lambda_function.this.environment[0].variables["PAGE"] == "1"
    error_message = "A public URL shows the page."
  }

  assert {
    condition = (
      aws_lambda_permission.public_url[0].action == "lambda:InvokeFunctionUrl" && aws_lambda_permission.public_url[0].qualifier == "live" &&
      aws_lambda_permission.public_url[0].function_url_auth_type == "NONE"
    )
    error_message = "Anyone may call the URL."
  }
  assert {
    condition = jsondecode(aws_cloudcontrolapi_resource.public_invoke[0].desired_state) == {
      FunctionName          = aws_lambda_alias.live.arn
      Action                = "lambda:InvokeFunction"
      Principal             = "*"
      InvokedViaFunctionUrl = true
    }
    error_message = "Anyone may invoke the function, but only through its URL."
  }
}

run "a_missing_package" {
  command = plan
  variables {
    package_path = "no-such.zip"
  }
  expect_failures = [var.package_path]
}

run "a_folder_as_package" {
  command = plan
  variables {
    package_path = "tests"
  }
  expect_failures = [var.package_path]
}

run "values_out_of_range" {
  command = plan
  variables {
    prefix                      = "Dogs_"
    memory_mb                   = 64
    timeout_s                   = 15
    picture_max_mib             = 6
    payload_max_mb              = 5
    provisioned_concurrency     = 5
    provisioned_concurrency_max = 4
    log_retention_days          = 100
  }
  expect_failures = [
    var.prefix, var.memory_mb, var.timeout_s, var.picture_max_mib, var.payload_max_mb, var.provisioned_concurrency_max,
    var.log_retention_days,
  ]
}

run "more_values_out_of_range" {
  command = plan
  variables {
    fetch_timeout_s         = 0
    provisioned_concurrency = 1.5
    url_auth                = "IAM"
    fetch_exempt_hosts      = ["*.test:80", "10.0.0.1"]
    endpoint_arn            = "arn:aws-us-gov:sagemaker:us-gov-west-1:123456789012:endpoint/another"
  }
  expect_failures = [
    var.fetch_timeout_s, var.provisioned_concurrency, var.url_auth, var.fetch_exempt_hosts, var.endpoint_arn,
  ]
}

run "a_cap_below_what_is_provisioned" {
  command = plan
  variables {
    provisioned_concurrency = 21
  }
  expect_failures = [var.reserved_concurrency]
}

run "a_cap_below_what_scaling_may_need" {
  command = plan
  variables {
    provisioned_concurrency_max = 21
  }
  expect_failures = [var.reserved_concurrency]
}

run "a_cap_of_nothing" {
  command = plan
  variables {
    provisioned_concurrency = 0
    reserved_concurrency    = 0
  }
  expect_failures = [var.reserved_concurrency]
}

run "scaling_from_nothing" {
  command = plan
  variables {
    provisioned_concurrency     = 0
    provisioned_concurrency_max = 5
  }
  expect_failures = [var.provisioned_concurrency_max]
}
