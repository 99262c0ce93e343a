resource "aws_lambda_provisioned_concurrency_config" "fixed" {
  count = var.provisioned_concurrency > 0 && var.provisioned_concurrency_max == null ? 1 : 0

  function_name                     = aws_lambda_function.this.function_name
  qualifier                         = aws_lambda_alias.live.name
  provisioned_concurrent_executions = var.provisioned_concurrency
}

# Auto-scaling changes the number, and ignore_changes cannot be conditional: hence a second resource.
resource "aws_lambda_provisioned_concurrency_config" "scaled" {
  count = var.provisioned_concurrency > 0 && var.provisioned_concurrency_max != null ? 1 : 0

  function_name                     = aws_lambda_function.this.function_name
  qualifier                         = aws_lambda_alias.live.name
  provisioned_concurrent_executions = var.provisioned_concurrency

  lifecycle {
    ignore_changes = [provisioned_concurrent_executions]
  }

  # Both are settings of the same alias. So ordered, the old one is deleted before the new one is made, either way.
  depends_on = [aws_lambda_provisioned_concurrency_config.fixed]
}

resource "aws_appautoscaling_target" "provisioned_concurrency" {
  count = length(aws_lambda_provisioned_concurrency_config.scaled)

  service_namespace  = "lambda"
  scalable_dimension = "lambda:function:ProvisionedConcurrency"
  resource_id        = "function:${aws_lambda_function.this.function_name}:${aws_lambda_alias.live.name}"
  min_capacity       = var.provisioned_concurrency
  max_capacity       = var.provisioned_concurrency_max
  tags               = var.tags

  depends_on = [aws_lambda_provisioned_concurrency_config.scaled]
}

resource "aws_appautoscaling_policy" "provisioned_concurrency" {
  count = length(aws_appautoscaling_target.provisioned_concurrency)

  name               = "${local.name}-provisioned-concurrency"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.provisioned_concurrency[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.provisioned_concurrency[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.provisioned_concurrency[0].resource_id

  target_tracking_scaling_policy_configuration {
    # Of the environments that are in use at the busiest moment of a minute. Growing takes some minutes, so a third is
    # kept free for what arrives meanwhile; calls beyond are served too, with a cold start.
    target_value = 0.7

    predefined_metric_specification {
      predefined_metric_type = "LambdaProvisionedConcurrencyUtilization"
    }
  }
}
