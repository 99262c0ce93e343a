locals {
  # Known at plan time whether or not there is an endpoint yet.
  scaled     = local.deployed && local.on_instances && (var.max_instances > var.min_instances || length(var.schedules) > 0)
  scheduled  = local.scaled && length(var.schedules) > 0
  from_zero  = local.scaled && var.kind == "async"
  when_quiet = local.scaled && var.kind == "real-time"

  target = one(concat(aws_appautoscaling_target.steady, aws_appautoscaling_target.scheduled))
}

# SageMaker does not let go of instances of one type for another while they are a scaling target, and forgets the target of an
# endpoint that is replaced. Replacing this takes target and policies away before the endpoint changes, and makes them
# again after; the same way one of the two targets below makes room for the other.
resource "terraform_data" "scaling" {
  count = local.scaled ? 1 : 0

  triggers_replace = {
    endpoint      = aws_sagemaker_endpoint.this[0].id
    instance_type = var.instance_type
    scheduled     = local.scheduled
  }
}

resource "aws_appautoscaling_target" "steady" {
  count = local.scaled && !local.scheduled ? 1 : 0

  service_namespace  = "sagemaker"
  scalable_dimension = "sagemaker:variant:DesiredInstanceCount"
  resource_id        = "endpoint/${aws_sagemaker_endpoint.this[0].name}/variant/${local.variant_name}"
  min_capacity       = var.min_instances
  max_capacity       = var.max_instances
  tags               = var.tags

  lifecycle {
    replace_triggered_by = [terraform_data.scaling]
  }
}

# The same with schedules, which change both numbers: every plan would set them back (and ignore_changes cannot depend on
# a variable).
resource "aws_appautoscaling_target" "scheduled" {
  count = local.scheduled ? 1 : 0

  service_namespace  = "sagemaker"
  scalable_dimension = "sagemaker:variant:DesiredInstanceCount"
  resource_id        = "endpoint/${aws_sagemaker_endpoint.this[0].name}/variant/${local.variant_name}"
  min_capacity       = var.min_instances
  max_capacity       = var.max_instances
  tags               = var.tags

  lifecycle {
    ignore_changes       = [min_capacity, max_capacity]
    replace_triggered_by = [terraform_data.scaling]
  }
}

resource "aws_appautoscaling_scheduled_action" "schedules" {
  for_each = { for name, schedule in var.schedules : name => schedule if local.scheduled }

  name               = "${var.name}-${each.key}"
  service_namespace  = local.target.service_namespace
  scalable_dimension = local.target.scalable_dimension
  resource_id        = local.target.resource_id
  schedule           = each.value.schedule
  timezone           = each.value.timezone

  scalable_target_action {
    min_capacity = each.value.min_instances
    max_capacity = each.value.max_instances
  }

  lifecycle {
    replace_triggered_by = [terraform_data.scaling]
  }
}

resource "aws_appautoscaling_policy" "load" {
  count = local.scaled ? 1 : 0

  name               = "${var.name}-load"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = local.target.service_namespace
  scalable_dimension = local.target.scalable_dimension
  resource_id        = local.target.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.kind == "async" ? var.async.backlog_per_instance : var.invocations_per_instance
    scale_in_cooldown  = var.scale_in_cooldown_s
    scale_out_cooldown = var.scale_out_cooldown_s

    dynamic "predefined_metric_specification" {
      for_each = var.kind == "real-time" ? [true] : []

      content {
        predefined_metric_type = "SageMakerVariantInvocationsPerInstance"
      }
    }

    dynamic "customized_metric_specification" {
      for_each = var.kind == "async" ? [true] : []

      content {
        namespace   = "AWS/SageMaker"
        metric_name = "ApproximateBacklogSizePerInstance"
        statistic   = "Average"

        dimensions {
          name  = "EndpointName"
          value = var.name
        }
      }
    }
  }

  lifecycle {
    replace_triggered_by = [terraform_data.scaling]
  }
}

# Without instances there is no backlog per instance to track, so the first one is started by another metric.
resource "aws_appautoscaling_policy" "from_zero" {
  count = local.from_zero ? 1 : 0

  name               = "${var.name}-from-zero"
  policy_type        = "StepScaling"
  service_namespace  = local.target.service_namespace
  scalable_dimension = local.target.scalable_dimension
  resource_id        = local.target.resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    metric_aggregation_type = "Average"
    cooldown                = var.scale_out_cooldown_s

    step_adjustment {
      metric_interval_lower_bound = 0
      scaling_adjustment          = 1
    }
  }

  lifecycle {
    replace_triggered_by = [terraform_data.scaling]
  }
}

resource "aws_cloudwatch_metric_alarm" "from_zero" {
  count = local.from_zero ? 1 : 0

  alarm_name          = "${var.name}-waiting-without-instances"
  alarm_description   = "Requests wait and no instance runs: starts the first one. Nothing to do, unless it stays on: then read the scaling activities of endpoint ${var.name}, most likely a quota."
  namespace           = "AWS/SageMaker"
  metric_name         = "HasBacklogWithoutCapacity"
  dimensions          = { EndpointName = var.name }
  statistic           = "Average"
  period              = 60
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  treat_missing_data  = "missing"
  alarm_actions       = [aws_appautoscaling_policy.from_zero[0].arn]
  tags                = var.tags
}

# Without requests SageMaker sends no metric at all, and target tracking does not act on missing data: what the last wave
# needed would run, and be paid, until the next.
resource "aws_appautoscaling_policy" "when_quiet" {
  count = local.when_quiet ? 1 : 0

  name               = "${var.name}-when-quiet"
  policy_type        = "StepScaling"
  service_namespace  = local.target.service_namespace
  scalable_dimension = local.target.scalable_dimension
  resource_id        = local.target.resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity" # never below the target's minimum
    metric_aggregation_type = "Average"
    cooldown                = var.scale_in_cooldown_s

    step_adjustment {
      metric_interval_upper_bound = 0
      scaling_adjustment          = -1
    }
  }

  lifecycle {
    replace_triggered_by = [terraform_data.scaling]
  }
}

resource "aws_cloudwatch_metric_alarm" "when_quiet" {
  count = local.when_quiet ? 1 : 0

  alarm_name          = "${var.name}-quiet"
  alarm_description   = "No request for 15 minutes: takes instances away, down to the minimum. Nothing to do; it is on whenever nobody asks."
  namespace           = "AWS/SageMaker"
  metric_name         = "Invocations"
  dimensions          = { EndpointName = var.name, VariantName = local.variant_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_appautoscaling_policy.when_quiet[0].arn]
  tags                = var.tags
}
