output "topic_arn" {
  description = "Topic for everything that somebody should look at; CloudWatch, EventBridge and Budgets may write to it."
  value       = aws_sns_topic.alarms.arn
  depends_on  = [aws_sns_topic_policy.alarms]
}

output "rollback_alarm_names" {
  description = "Alarms on the endpoint that should take a roll-out back. Empty without an endpoint."
  value       = toset(values(aws_cloudwatch_metric_alarm.endpoint)[*].alarm_name)
}

output "dashboard_name" {
  description = "CloudWatch dashboard of this environment."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}
