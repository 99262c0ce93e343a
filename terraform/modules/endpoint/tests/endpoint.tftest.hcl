# What each choice makes, and what the role may do with it.

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
  mock_data "aws_sagemaker_prebuilt_ecr_image" {
    defaults = { registry_path = "763104351884.dkr.ecr.eu-central-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker" }
  }
  mock_data "aws_s3_objects" {
    defaults = { keys = ["models/a/model.tar.gz"] }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/dogs-test-endpoint" }
  }
  mock_resource "aws_appautoscaling_policy" {
    defaults = { arn = "arn:aws:autoscaling:eu-central-1:123456789012:scalingPolicy:1:resource/sagemaker/x:policyName/y" }
  }
}

variables {
  prefix               = "dogs-test"
  name                 = "dogs-test"
  kms_key_arn          = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  artifacts_bucket     = { name = "dogs-test-artifacts", arn = "arn:aws:s3:::dogs-test-artifacts" }
  model                = { data_url = "s3://dogs-test-artifacts/models/a/model.tar.gz" }
  rollback_alarm_names = ["dogs-test-endpoint-errors"]
  serving_image = {
    uri        = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dogs-test-serving:0123456789abcdef"
    repository = "dogs-test-serving"
    tag        = "0123456789abcdef"
  }
}

run "without_a_model_there_is_no_endpoint_and_nothing_to_scale" {
  command = apply

  variables {
    model                = null
    rollback_alarm_names = []
  }

  assert {
    condition     = length(aws_sagemaker_model.this) + length(aws_sagemaker_endpoint_configuration.this) + length(aws_sagemaker_endpoint.this) == 0
    error_message = "Something is served without a model."
  }
  assert {
    condition     = length(aws_appautoscaling_target.steady) + length(aws_appautoscaling_policy.load) + length(aws_cloudwatch_metric_alarm.when_quiet) == 0
    error_message = "Something scales without an endpoint."
  }
  assert {
    condition = (output.name == "dogs-test" && output.configuration_name == null && output.variant_name == "AllTraffic" && output.kind == "real-time"
    && output.arn == "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/dogs-test" && output.log_group_name == "/aws/sagemaker/Endpoints/dogs-test")
    error_message = "Others cannot be told of the endpoint before it exists."
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_iam_role_policy.endpoint.policy).Statement : !strcontains(jsonencode(s), "s3:")]) && length(aws_iam_role_policy.model) == 0
    error_message = "Without a model the role may read or write S3."
  }
}

run "real_time_is_encrypted_isolated_and_rolled_back_by_alarms" {
  command = apply

  assert {
    condition     = aws_sagemaker_model.this[0].enable_network_isolation && length(aws_sagemaker_model.this[0].vpc_config) == 0
    error_message = "The model has a network."
  }
  assert {
    condition     = aws_sagemaker_model.this[0].primary_container[0].image == var.serving_image.uri && length(aws_sagemaker_model.this[0].primary_container[0].environment) == 0
    error_message = "A model that names no image is not served by ours."
  }
  assert {
    condition     = data.aws_ecr_image.serving[0].repository_name == "dogs-test-serving" && data.aws_ecr_image.serving[0].image_tag == "0123456789abcdef"
    error_message = "Nobody looks whether the image has been built."
  }
  assert {
    condition     = can(regex("^dogs-test-[0-9a-f]{8}$", aws_sagemaker_model.this[0].name)) && aws_sagemaker_endpoint_configuration.this[0].name_prefix == "dogs-test-"
    error_message = "Old and new cannot exist side by side."
  }
  assert {
    condition = (
      aws_sagemaker_endpoint_configuration.this[0].kms_key_arn == var.kms_key_arn
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].instance_type == "ml.m5.large"
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].initial_instance_count == 1
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].routing_config[0].routing_strategy == "LEAST_OUTSTANDING_REQUESTS"
      && length(aws_sagemaker_endpoint_configuration.this[0].data_capture_config) == 0
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].container_startup_health_check_timeout_in_seconds == 180
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].model_data_download_timeout_in_seconds == 300
    )
    error_message = "The configuration is not one encrypted ml.m5.large that is given minutes to start."
  }
  assert {
    condition = (
      aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].type == "ALL_AT_ONCE"
      && [for a in aws_sagemaker_endpoint.this[0].deployment_config[0].auto_rollback_configuration[0].alarms : a.alarm_name] == ["dogs-test-endpoint-errors"]
    )
    error_message = "The alarms are not declared from the first apply on."
  }
  assert {
    condition     = aws_cloudwatch_log_group.endpoint.kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.endpoint.retention_in_days == 365
    error_message = "The logs are not encrypted, or kept for ever."
  }
  assert {
    condition = jsondecode(aws_iam_role.endpoint.assume_role_policy).Statement[0] == {
      Sid       = "SageMakerEndpoints"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "sagemaker.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = "123456789012" }
        ArnLike      = { "aws:SourceArn" = "arn:aws:sagemaker:eu-central-1:123456789012:*" }
      }
    }
    error_message = "Somebody other than SageMaker for this account may take the role."
  }

  # What the role may do then: one archive, one image.
  assert {
    condition = { for s in jsondecode(aws_iam_role_policy.model[0].policy).Statement : s.Sid => s.Resource } == {
      ReadModel = "arn:aws:s3:::dogs-test-artifacts/models/a/model.tar.gz"
      PullImage = "arn:aws:ecr:eu-central-1:123456789012:repository/dogs-test-serving"
    }
    error_message = "The role reads more than the model and its image."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.endpoint.policy).Statement : s.Sid if contains(flatten([s.Resource]), "*")] == ["LogInToRegistry", "PutMetrics"]
    error_message = "A statement names no resource though AWS knows one for its actions."
  }
  assert {
    condition = alltrue([
      for s in concat(jsondecode(aws_iam_role_policy.endpoint.policy).Statement, jsondecode(aws_iam_role_policy.model[0].policy).Statement) :
      alltrue([for action in flatten([s.Action]) : !strcontains(action, "*")])
    ])
    error_message = "A wildcard stands among the actions."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.endpoint.policy).Statement : s.Resource if s.Sid == "WatchAlarms"] == [["arn:aws:cloudwatch:eu-central-1:123456789012:alarm:dogs-test-endpoint-errors"]]
    error_message = "SageMaker may not see the alarms it should act on."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.endpoint.policy, "s3:PutObject") && !strcontains(aws_iam_role_policy.endpoint.policy, "GenerateDataKey") && !strcontains(aws_iam_role_policy.endpoint.policy, "ec2:")
    error_message = "The role may write or use the network though nothing does."
  }
}

run "aws_container_is_told_where_the_hooks_are_and_may_install_what_it_lacks" {
  command = apply

  variables {
    model = { data_url = "s3://dogs-test-artifacts/models/a/model.tar.gz", image = "aws", network_isolation = false }
  }

  assert {
    condition = aws_sagemaker_model.this[0].primary_container[0].environment == tomap({
      SAGEMAKER_CONTAINER_LOG_LEVEL = "20"
      SAGEMAKER_PROGRAM             = "inference.py"
      SAGEMAKER_REGION              = "eu-central-1"
      SAGEMAKER_SUBMIT_DIRECTORY    = "/opt/ml/model/code"
    })
    error_message = "AWS's container is not told where the hooks are."
  }
  assert {
    condition = (
      endswith(aws_sagemaker_model.this[0].primary_container[0].image, "/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker")
      && !aws_sagemaker_model.this[0].enable_network_isolation
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].container_startup_health_check_timeout_in_seconds == 600
    )
    error_message = "AWS's container is not run, or cannot install packages when it starts."
  }
  assert {
    condition     = length(data.aws_ecr_image.serving) == 0 && one([for s in jsondecode(aws_iam_role_policy.model[0].policy).Statement : s.Resource if s.Sid == "PullImage"]) == "arn:aws:ecr:eu-central-1:763104351884:repository/pytorch-inference"
    error_message = "The role may pull another image, or ours has to be there too."
  }
}

run "where_no_image_is_pulled_none_has_to_be_there" {
  command = plan

  variables {
    check_image = false
  }

  assert {
    condition     = length(data.aws_ecr_image.serving) == 0
    error_message = "The local AWS would need an image that nothing there can build."
  }
}

run "in_the_network_only_its_subnets_and_groups" {
  command = apply

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"], security_group_ids = ["sg-1"] }
  }

  assert {
    condition     = aws_sagemaker_model.this[0].vpc_config[0].subnets == toset(["subnet-1", "subnet-2"]) && aws_sagemaker_model.this[0].vpc_config[0].security_group_ids == toset(["sg-1"])
    error_message = "The model is outside the network."
  }
  assert {
    condition = [for s in jsondecode(aws_iam_role_policy.endpoint.policy).Statement : s.Resource if s.Sid == "MakeNetworkInterfaces"] == [[
      "arn:aws:ec2:eu-central-1:123456789012:network-interface/*",
      "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-1",
      "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-2",
      "arn:aws:ec2:eu-central-1:123456789012:security-group/sg-1",
    ]]
    error_message = "Interfaces may be made elsewhere."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.endpoint.policy).Statement : s.Sid if contains(flatten([s.Resource]), "*")] == ["LogInToRegistry", "PutMetrics", "DescribeNetwork"]
    error_message = "A statement names no resource though AWS knows one for its actions."
  }
}

run "auto_scaling_tracks_invocations_per_minute_and_shrinks_without_traffic" {
  command = apply

  variables {
    min_instances            = 2
    max_instances            = 4
    invocations_per_instance = 120
    scale_in_cooldown_s      = 600
    scale_out_cooldown_s     = 240
  }

  assert {
    condition = (aws_appautoscaling_target.steady[0].resource_id == "endpoint/dogs-test/variant/AllTraffic"
    && aws_appautoscaling_target.steady[0].min_capacity == 2 && aws_appautoscaling_target.steady[0].max_capacity == 4)
    error_message = "The wrong thing scales, or between the wrong bounds."
  }
  assert {
    condition = (
      aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].target_value == 120
      && aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].scale_in_cooldown == 600
      && aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].scale_out_cooldown == 240
      && aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type == "SageMakerVariantInvocationsPerInstance"
    )
    error_message = "Target or cooldowns are not what was asked for, or swapped."
  }
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.when_quiet[0].treat_missing_data == "breaching"
      && one(aws_cloudwatch_metric_alarm.when_quiet[0].alarm_actions) == aws_appautoscaling_policy.when_quiet[0].arn
      && one(aws_appautoscaling_policy.when_quiet[0].step_scaling_policy_configuration[0].step_adjustment).scaling_adjustment == -1
    )
    error_message = "Instances stay when the last request has gone."
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].initial_instance_count == 2
    error_message = "The fleet starts below its minimum."
  }
  assert {
    condition     = terraform_data.scaling[0].triggers_replace.instance_type == "ml.m5.large"
    error_message = "A new instance type would meet a registered target, which SageMaker refuses."
  }
}

run "equal_bounds_turn_auto_scaling_off" {
  command = plan

  variables {
    min_instances = 3
  }

  assert {
    condition     = length(aws_appautoscaling_target.steady) + length(aws_appautoscaling_policy.load) + length(aws_appautoscaling_policy.when_quiet) == 0
    error_message = "Something scales."
  }
}

run "schedules_move_the_bounds_and_plans_leave_them" {
  command = apply

  variables {
    schedules = {
      evening = { schedule = "cron(0 20 * * ? *)", timezone = "Europe/Berlin", min_instances = 1, max_instances = 1 }
      morning = { schedule = "cron(0 7 * * ? *)", min_instances = 2, max_instances = 3 }
    }
  }

  assert {
    condition     = length(aws_appautoscaling_target.steady) == 0 && length(aws_appautoscaling_target.scheduled) == 1
    error_message = "The target would be set back by the next plan."
  }
  assert {
    condition = (
      aws_appautoscaling_scheduled_action.schedules["evening"].timezone == "Europe/Berlin"
      && aws_appautoscaling_scheduled_action.schedules["evening"].scalable_target_action[0].max_capacity == "1"
      && aws_appautoscaling_scheduled_action.schedules["morning"].timezone == "UTC"
      && aws_appautoscaling_scheduled_action.schedules["morning"].scalable_target_action[0].min_capacity == "2"
    )
    error_message = "The schedules are not those that were asked for."
  }
}

run "a_canary_is_half_of_two" {
  command = plan

  variables {
    min_instances = 2
    roll_out      = { strategy = "canary", wait_s = 120, termination_wait_s = 60 }
  }

  assert {
    condition = (
      aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].type == "CANARY"
      && aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].wait_interval_in_seconds == 120
      && aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].canary_size[0].value == 50
      && aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy[0].termination_wait_in_seconds == 60
    )
    error_message = "The roll-out is not the canary that was asked for."
  }
}

run "a_single_instance_can_roll_out_in_steps_with_a_larger_new_fleet" {
  command = plan

  variables {
    max_instances = 4
    roll_out      = { strategy = "linear", size_percent = 25, instances = 4 }
  }

  assert {
    condition = (
      aws_sagemaker_endpoint_configuration.this[0].production_variants[0].initial_instance_count == 4
      && aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].linear_step_size[0].value == 25
    )
    error_message = "The roll-out is not the one that was asked for."
  }
}

run "disks_inside_the_instance_take_no_key" {
  command = apply

  variables {
    instance_type = "ml.g5.xlarge"
    model = {
      data_url    = "s3://dogs-test-artifacts/models/a/model.tar.gz"
      image       = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/dogs@sha256:0000000000000000000000000000000000000000000000000000000000000000"
      environment = { TOP_K = "3" }
    }
  }

  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].kms_key_arn == null && !strcontains(aws_iam_role_policy.endpoint.policy, "kms:CreateGrant")
    error_message = "SageMaker refuses a key for instances with disks of their own."
  }
  assert {
    condition     = aws_sagemaker_model.this[0].primary_container[0].environment == tomap({ TOP_K = "3" }) && length(data.aws_ecr_image.serving) == 0
    error_message = "A custom image gets variables of AWS's container, or ours has to be there too."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.model[0].policy).Statement : s.Resource if s.Sid == "PullImage"] == ["arn:aws:ecr:eu-central-1:123456789012:repository/team/dogs"]
    error_message = "The role may not pull the model's image."
  }
}

run "captured_requests_are_encrypted_and_written_to_one_place" {
  command = apply

  variables {
    data_capture_percent = 20
  }

  assert {
    condition = (
      aws_sagemaker_endpoint_configuration.this[0].data_capture_config[0].destination_s3_uri == "s3://dogs-test-artifacts/capture"
      && aws_sagemaker_endpoint_configuration.this[0].data_capture_config[0].kms_key_id == var.kms_key_arn
      && aws_sagemaker_endpoint_configuration.this[0].data_capture_config[0].initial_sampling_percentage == 20
      && [for o in aws_sagemaker_endpoint_configuration.this[0].data_capture_config[0].capture_options : o.capture_mode] == ["Input", "Output"]
    )
    error_message = "Captured requests are not what was asked for."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.endpoint.policy).Statement : s.Resource if strcontains(jsonencode(s.Action), "s3:")] == [["arn:aws:s3:::dogs-test-artifacts/capture/*"]]
    error_message = "The role writes elsewhere than to capture/."
  }
}

run "serverless_has_no_instances_network_or_guardrails" {
  command = apply

  variables {
    kind       = "serverless"
    network    = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    serverless = { memory_mb = 2048, max_concurrency = 10, provisioned_concurrency = 2 }
  }

  assert {
    condition     = !aws_sagemaker_model.this[0].enable_network_isolation && length(aws_sagemaker_model.this[0].vpc_config) == 0
    error_message = "SageMaker refuses a serverless model with a network or without any."
  }
  assert {
    condition = (
      aws_sagemaker_endpoint_configuration.this[0].kms_key_arn == null
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].instance_type == null
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].serverless_config[0].memory_size_in_mb == 2048
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].serverless_config[0].max_concurrency == 10
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].serverless_config[0].provisioned_concurrency == 2
      && length(aws_sagemaker_endpoint_configuration.this[0].production_variants[0].routing_config) == 0
      && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].container_startup_health_check_timeout_in_seconds == null
    )
    error_message = "The configuration is not serverless."
  }
  assert {
    condition     = length(aws_sagemaker_endpoint.this[0].deployment_config) == 0 && length(aws_appautoscaling_target.steady) == 0
    error_message = "A serverless endpoint has a roll-out or scales instances."
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.endpoint.policy).Statement : s.Sid] == ["UseKey", "LogInToRegistry", "WriteLogs", "PutMetrics"]
    error_message = "The role has rights for instances."
  }
}

run "async_scales_by_backlog_from_and_to_zero" {
  command = apply

  variables {
    kind          = "async"
    min_instances = 0
    async = {
      concurrency_per_instance = 4
      backlog_per_instance     = 10
      error_topic_arn          = "arn:aws:sns:eu-central-1:123456789012:dogs-test-alarms"
    }
  }

  assert {
    condition     = aws_appautoscaling_target.steady[0].min_capacity == 0 && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].initial_instance_count == 1
    error_message = "The endpoint cannot go down to nothing, or starts with it, which SageMaker refuses."
  }
  assert {
    condition = (
      aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].target_value == 10
      && aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metric_name == "ApproximateBacklogSizePerInstance"
      && aws_cloudwatch_metric_alarm.from_zero[0].metric_name == "HasBacklogWithoutCapacity"
      && one(aws_cloudwatch_metric_alarm.from_zero[0].alarm_actions) == aws_appautoscaling_policy.from_zero[0].arn
      && one(aws_appautoscaling_policy.from_zero[0].step_scaling_policy_configuration[0].step_adjustment).scaling_adjustment == 1
      && length(aws_appautoscaling_policy.when_quiet) == 0
    )
    error_message = "Waiting requests do not start instances."
  }
  assert {
    condition = (
      aws_sagemaker_endpoint_configuration.this[0].async_inference_config[0].output_config[0].s3_output_path == "s3://dogs-test-artifacts/async/output/"
      && aws_sagemaker_endpoint_configuration.this[0].async_inference_config[0].output_config[0].s3_failure_path == "s3://dogs-test-artifacts/async/failures/"
      && aws_sagemaker_endpoint_configuration.this[0].async_inference_config[0].output_config[0].kms_key_id == var.kms_key_arn
      && aws_sagemaker_endpoint_configuration.this[0].async_inference_config[0].output_config[0].notification_config[0].error_topic == var.async.error_topic_arn
      && aws_sagemaker_endpoint_configuration.this[0].async_inference_config[0].client_config[0].max_concurrent_invocations_per_instance == 4
    )
    error_message = "Answers and failures go elsewhere, or unencrypted."
  }
  assert {
    condition = { for s in jsondecode(aws_iam_role_policy.endpoint.policy).Statement : s.Sid => s.Resource if contains(["WriteResults", "ReadRequests", "Notify"], s.Sid) } == {
      WriteResults = ["arn:aws:s3:::dogs-test-artifacts/async/output/*", "arn:aws:s3:::dogs-test-artifacts/async/failures/*"]
      ReadRequests = "arn:aws:s3:::dogs-test-artifacts/async/input/*"
      Notify       = ["arn:aws:sns:eu-central-1:123456789012:dogs-test-alarms"]
    }
    error_message = "The role reads, writes or notifies elsewhere."
  }
}
