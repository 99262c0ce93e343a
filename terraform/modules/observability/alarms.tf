# Missing data is good news everywhere: nothing was asked, so nothing failed.

# The two that also take roll-outs back. They need more than one bad minute for it, and don't count 4xx answers: those are
# callers' mistakes, and a caller must not be able to stop a roll-out.
locals {
  endpoint_alarms = { for key, alarm in {
    errors = {
      description = "The endpoint fails on more than 5 % of requests in two of three minutes (5xx). First: the log group /aws/sagemaker/Endpoints/${try(var.endpoint.name, "")}; if it began with a roll-out, promote the former model."
      metric_name = "Invocation5XXErrors"
      statistic   = "Average" # a failed request counts 1, any other 0
      percentile  = null
      threshold   = 0.05
      datapoints  = 2
      periods     = 3
    }
    latency = {
      description = "The slowest hundredth of requests takes the model more than ${var.latency_p99_ms} ms in three of five minutes. First: the load in the dashboard. If it is high, lower invocations_per_instance or raise max_instances; if not, see what the new model or its input has changed."
      metric_name = "ModelLatency"
      statistic   = null
      percentile  = "p99"
      threshold   = var.latency_p99_ms * 1000 # microseconds
      datapoints  = 3
      periods     = 5
    }
  } : key => alarm if var.endpoint != null }
}

resource "aws_cloudwatch_metric_alarm" "endpoint" {
  for_each = local.endpoint_alarms

  alarm_name          = "${var.prefix}-endpoint-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/SageMaker"
  metric_name         = each.value.metric_name
  dimensions          = { EndpointName = var.endpoint.name, VariantName = var.endpoint.variant_name }
  statistic           = each.value.statistic
  extended_statistic  = each.value.percentile
  period              = 60
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.datapoints
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = var.tags

  # Of a handful of requests the 99th percentile is just the slowest.
  evaluate_low_sample_count_percentiles = each.value.percentile == null ? null : "ignore"
}

# Not for roll-backs: a request whose input is missing or no picture fails too, and that is its caller's mistake.
resource "aws_cloudwatch_metric_alarm" "async_failures" {
  count = local.kind == "async" ? 1 : 0

  alarm_name          = "${var.prefix}-endpoint-failures"
  alarm_description   = "Asynchronous requests ended without an answer. First: the reasons in async/failures/ of the artifacts bucket; if the callers' input is fine, the log group /aws/sagemaker/Endpoints/${try(var.endpoint.name, "")}."
  namespace           = "AWS/SageMaker"
  metric_name         = "InvocationFailures"
  dimensions          = { EndpointName = var.endpoint.name, VariantName = var.endpoint.variant_name }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = var.tags
}

# Those on the function look at the alias, which is what callers use. Each: at least `threshold` of the metric in 5 minutes.
locals {
  function          = var.classify_function
  dead_letter_queue = try(local.function.dead_letter_queue_name, null)
  function_metric   = try({ FunctionName = local.function.name, Resource = "${local.function.name}:${local.function.alias}" }, {})

  function_alarms = { for key, alarm in {
    errors = {
      description = "Calls of the function ended without an answer: timeouts or crashes, since it answers everything else itself. First: in its log group the lines \"Task timed out\" and \"Runtime exited\"."
      metric_name = "Errors"
      threshold   = 3
      wanted      = local.function != null
    }
    failures = {
      description = "Callers were answered with 500 or more. First: the dashboard, whether the endpoint exists and answers; then the `detail` in the function's log lines."
      namespace   = try(local.function.failures_metric.namespace, null)
      metric_name = try(local.function.failures_metric.name, null)
      dimensions  = {}
      threshold   = 3
      wanted      = try(local.function.failures_metric, null) != null
    }
    throttles = {
      description = "Calls were refused because as many ran as may (429). First: raise reserved_concurrency or the account's quota of concurrent executions. Needed: calls per second × seconds per call."
      metric_name = "Throttles"
      threshold   = 1
      wanted      = local.function != null
    }
    spillover = {
      description = "More calls at a time than workers are kept warm, so some waited for a cold start. First: raise provisioned_concurrency if this comes daily; else leave it."
      metric_name = "ProvisionedConcurrencySpilloverInvocations"
      threshold   = 10
      wanted      = local.function != null && try(local.function.provisioned_concurrency, null) != 0
    }
    dead-letters = {
      description = "Asynchronous calls failed for good and wait in the dead-letter queue. First: read one there, it holds the event and the reason; the queue deletes them after some days."
      namespace   = "AWS/SQS"
      metric_name = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = local.dead_letter_queue }
      statistic   = "Maximum"
      threshold   = 1
      wanted      = local.dead_letter_queue != null
    }
  } : key => alarm if alarm.wanted }
}

resource "aws_cloudwatch_metric_alarm" "function" {
  for_each = local.function_alarms

  alarm_name          = "${var.prefix}-function-${each.key}"
  alarm_description   = each.value.description
  namespace           = try(each.value.namespace, "AWS/Lambda")
  metric_name         = each.value.metric_name
  dimensions          = try(each.value.dimensions, local.function_metric)
  statistic           = try(each.value.statistic, "Sum")
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "function_duration" {
  count = try(local.function.timeout_s, null) == null ? 0 : 1

  alarm_name                            = "${var.prefix}-function-duration"
  alarm_description                     = "The slowest hundredth of calls takes more than 80 % of the ${local.function.timeout_s} s that a call may take. First: the dashboard, whether the endpoint got slower; else the web servers that pictures come from. Then raise timeout_s."
  namespace                             = "AWS/Lambda"
  metric_name                           = "Duration"
  dimensions                            = local.function_metric
  extended_statistic                    = "p99"
  evaluate_low_sample_count_percentiles = "ignore"
  period                                = 300
  evaluation_periods                    = 3
  datapoints_to_alarm                   = 2
  comparison_operator                   = "GreaterThanThreshold"
  threshold                             = local.function.timeout_s * 1000 * 0.8 # milliseconds
  treat_missing_data                    = "notBreaching"
  alarm_actions                         = [aws_sns_topic.alarms.arn]
  ok_actions                            = [aws_sns_topic.alarms.arn]
  tags                                  = var.tags
}

# The rule sends a message for each failed job; an alarm on every one of them would only say it twice.
locals {
  job_alarms = { for key, alarm in {
    failed-jobs = {
      description = "Three or more jobs failed within an hour; a message came for each. So many at once have one cause: a quota, a role or key, a broken bundle. First: the reason in one of the messages, then that job's logs."
      metric_name = "TriggeredRules"
      threshold   = 3
      period      = 3600
    }
    lost-messages = {
      description = "EventBridge could not deliver a message about a failed job to this topic. First: the topic's policy and the key's policy; both must admit events.amazonaws.com."
      metric_name = "FailedInvocations"
      threshold   = 1
      period      = 300
    }
  } : key => alarm if var.failed_job_rule_name != null }
}

resource "aws_cloudwatch_metric_alarm" "jobs" {
  for_each = local.job_alarms

  alarm_name          = "${var.prefix}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/Events"
  metric_name         = each.value.metric_name
  dimensions          = { RuleName = var.failed_job_rule_name }
  statistic           = "Sum"
  period              = each.value.period
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  tags                = var.tags
}
