output "name" {
  description = "Name of the function."
  value       = aws_lambda_function.this.function_name
}

output "arn" {
  description = "ARN of the function, without a version. Callers use alias_arn."
  value       = aws_lambda_function.this.arn
}

output "alias_name" {
  description = "Alias that callers use; it follows the newest version."
  value       = aws_lambda_alias.live.name
}

output "alias_arn" {
  description = "ARN of the alias: what callers invoke, and what their policies name."
  value       = aws_lambda_alias.live.arn
  depends_on  = [aws_lambda_provisioned_concurrency_config.fixed, aws_lambda_provisioned_concurrency_config.scaled]
}

output "url" {
  description = "Address that takes POST requests, and shows the page where it is on; null when url_auth is OFF."
  value       = one(aws_lambda_function_url.live[*].function_url)
  depends_on  = [aws_lambda_permission.public_url, aws_cloudcontrolapi_resource.public_invoke]
}

output "role_arn" {
  description = "Role of the function."
  value       = aws_iam_role.this.arn
}

output "log_group_name" {
  description = "Log group of the function: one line of JSON for each call."
  value       = aws_cloudwatch_log_group.this.name
}

output "dead_letter_queue_name" {
  description = "Queue of the events that asynchronous callers sent in vain."
  value       = aws_sqs_queue.failed_events.name
}

output "dead_letter_queue_arn" {
  description = "ARN of that queue."
  value       = aws_sqs_queue.failed_events.arn
  depends_on  = [aws_sqs_queue_policy.failed_events]
}

output "watched" {
  description = "What alarms on the function need to know. failures_metric counts answers of 500 and above, which Lambda's own error metric does not see."
  value = {
    name                    = aws_lambda_function.this.function_name
    alias                   = aws_lambda_alias.live.name
    dead_letter_queue_name  = aws_sqs_queue.failed_events.name
    provisioned_concurrency = var.provisioned_concurrency
    timeout_s               = var.timeout_s
    failures_metric = {
      namespace = aws_cloudwatch_log_metric_filter.failures.metric_transformation[0].namespace
      name      = aws_cloudwatch_log_metric_filter.failures.metric_transformation[0].name
    }
  }
}
