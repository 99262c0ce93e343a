# Three graphs in a row; what does not exist has none.

locals {
  # A metric's name and what it belongs to, as dashboards want them. Empty where nothing is watched: not shown then. The
  # queue of an async endpoint belongs to no variant.
  endpoint_dimensions = try(["EndpointName", var.endpoint.name, "VariantName", var.endpoint.variant_name], [])
  queue_dimensions    = try(["EndpointName", var.endpoint.name], [])
  function_dimensions = try(["FunctionName", local.function.name, "Resource", "${local.function.name}:${local.function.alias}"], [])
  rule_dimensions     = ["RuleName", var.failed_job_rule_name]

  kind        = try(var.endpoint.kind, "none")
  synchronous = contains(["real-time", "serverless"], local.kind) # async endpoints count requests by other metrics

  graphs = [for graph in [
    {
      title = "Endpoint: requests a minute"
      shown = local.synchronous
      stat  = "Sum"
      metrics = [
        concat(["AWS/SageMaker", "Invocations"], local.endpoint_dimensions, [{ label = "all" }]),
        concat(["AWS/SageMaker", "InvocationsPerInstance"], local.endpoint_dimensions, [{ label = "per instance" }]),
      ]
    },
    {
      title = "Endpoint: requests a minute"
      shown = local.kind == "async"
      stat  = "Sum"
      metrics = [
        concat(["AWS/SageMaker", "InvocationsProcessed"], local.endpoint_dimensions, [{ label = "worked on" }]),
        concat(["AWS/SageMaker", "InvocationFailures"], local.endpoint_dimensions, [{ label = "failed" }]),
      ]
    },
    {
      title  = "Endpoint: latency (µs)"
      shown  = var.endpoint != null
      stat   = "p99"
      limits = [{ label = "alarm", value = var.latency_p99_ms * 1000 }]
      metrics = concat([
        concat(["AWS/SageMaker", "ModelLatency"], local.endpoint_dimensions, [{ label = "model, p50", stat = "p50" }]),
        concat(["AWS/SageMaker", "ModelLatency"], local.endpoint_dimensions, [{ label = "model, p99" }]),
        ], [for name in ["OverheadLatency"] :
        concat(["AWS/SageMaker", name], local.endpoint_dimensions, [{ label = "SageMaker, p99" }]) if local.synchronous
      ])
    },
    {
      title = "Endpoint: errors"
      shown = var.endpoint != null
      stat  = "Sum"
      metrics = [
        concat(["AWS/SageMaker", "Invocation5XXErrors"], local.endpoint_dimensions, [{ label = "5xx, ours" }]),
        concat(["AWS/SageMaker", "Invocation4XXErrors"], local.endpoint_dimensions, [{ label = "4xx, the callers'" }]),
      ]
    },
    {
      title = "Endpoint: load (100 % is one processor)"
      shown = contains(["real-time", "async"], local.kind)
      stat  = "Average"
      metrics = [for name in ["CPUUtilization", "MemoryUtilization", "GPUUtilization", "DiskUtilization"] :
        concat(["/aws/sagemaker/Endpoints", name], local.endpoint_dimensions)
      ]
    },
    {
      title = "Endpoint: instances that answered"
      shown = local.kind == "real-time"
      stat  = "Sum"
      metrics = [
        [{ expression = "all / each", label = "instances" }],
        concat(["AWS/SageMaker", "Invocations"], local.endpoint_dimensions, [{ id = "all", visible = false }]),
        concat(["AWS/SageMaker", "InvocationsPerInstance"], local.endpoint_dimensions, [{ id = "each", visible = false }]),
      ]
    },
    {
      title = "Endpoint: waiting requests"
      shown = local.kind == "async"
      stat  = "Maximum"
      metrics = [
        concat(["AWS/SageMaker", "ApproximateBacklogSize"], local.queue_dimensions, [{ label = "all" }]),
        concat(["AWS/SageMaker", "ApproximateBacklogSizePerInstance"], local.queue_dimensions, [{ label = "per instance" }]),
      ]
    },
    {
      title   = "Endpoint: cold starts (µs)"
      shown   = local.kind == "serverless"
      stat    = "Maximum"
      metrics = [concat(["AWS/SageMaker", "ModelSetupTime"], local.endpoint_dimensions)]
    },
    {
      title = "Function: calls"
      shown = local.function != null
      stat  = "Sum"
      metrics = [for name, label in {
        Invocations = "all", Errors = "without an answer", Throttles = "refused", Url4xxCount = "URL 4xx", Url5xxCount = "URL 5xx"
        } : concat(["AWS/Lambda", name], local.function_dimensions, [{ label = label }])
      ]
    },
    {
      title = "Function: duration (ms)"
      shown = local.function != null
      stat  = "p99"
      metrics = [
        concat(["AWS/Lambda", "Duration"], local.function_dimensions, [{ label = "p50", stat = "p50" }]),
        concat(["AWS/Lambda", "Duration"], local.function_dimensions, [{ label = "p99" }]),
      ]
    },
    {
      title = "Function: calls at a time"
      shown = local.function != null
      stat  = "Maximum"
      metrics = [
        concat(["AWS/Lambda", "ConcurrentExecutions"], local.function_dimensions, [{ label = "running" }]),
        concat(["AWS/Lambda", "ProvisionedConcurrentExecutions"], local.function_dimensions, [{ label = "of them warm" }]),
        concat(["AWS/Lambda", "ProvisionedConcurrencySpilloverInvocations"], local.function_dimensions, [{ label = "cold for want of warm ones", stat = "Sum" }]),
      ]
    },
    {
      title  = "Jobs that did not complete"
      shown  = var.failed_job_rule_name != null
      stat   = "Sum"
      period = 3600
      metrics = [
        concat(["AWS/Events", "TriggeredRules"], local.rule_dimensions, [{ label = "jobs" }]),
        concat(["AWS/Events", "FailedInvocations"], local.rule_dimensions, [{ label = "messages lost" }]),
      ]
    },
    {
      # Billing metrics live in us-east-1 wherever the cost is made.
      title   = "Account: cost of this month so far (USD; shown once billing alerts are on)"
      shown   = local.partition == "aws"
      stat    = "Maximum"
      period  = 21600
      region  = "us-east-1"
      metrics = [["AWS/Billing", "EstimatedCharges", "Currency", "USD", { label = "all services" }]]
    },
  ] : graph if graph.shown]

  alarm_arns = concat(
    values(aws_cloudwatch_metric_alarm.endpoint)[*].arn,
    aws_cloudwatch_metric_alarm.async_failures[*].arn,
    values(aws_cloudwatch_metric_alarm.function)[*].arn,
    aws_cloudwatch_metric_alarm.function_duration[*].arn,
    values(aws_cloudwatch_metric_alarm.jobs)[*].arn,
  )
  alarm_rows = length(local.alarm_arns) > 0 ? 3 : 0
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.prefix

  dashboard_body = jsonencode({
    widgets = concat(
      [for arns in [local.alarm_arns] : {
        type       = "alarm"
        x          = 0
        y          = 0
        width      = 24
        height     = local.alarm_rows
        properties = { title = "Alarms", alarms = arns }
      } if length(arns) > 0],
      [for i, graph in local.graphs : {
        type   = "metric"
        x      = i % 3 * 8
        y      = local.alarm_rows + floor(i / 3) * 6
        width  = 8
        height = 6
        properties = {
          title       = graph.title
          view        = "timeSeries"
          region      = try(graph.region, local.region)
          period      = try(graph.period, 60)
          stat        = graph.stat
          metrics     = graph.metrics
          annotations = { horizontal = try(graph.limits, []) }
          yAxis       = { left = { min = 0 } }
        }
      }],
    )
  })
}
