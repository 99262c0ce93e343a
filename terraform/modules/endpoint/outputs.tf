output "name" {
  description = "Name of the endpoint, whether or not there is a model to serve."
  value       = var.name
  depends_on  = [aws_sagemaker_endpoint.this]
}

output "arn" {
  description = "ARN of the endpoint, for policies, whether or not there is a model to serve."
  value       = "arn:${local.partition}:sagemaker:${local.region}:${local.account_id}:endpoint/${var.name}"
  depends_on  = [aws_sagemaker_endpoint.this]
}

output "configuration_name" {
  description = "Configuration that is live. Null without a model: then there is no endpoint."
  value       = one(aws_sagemaker_endpoint.this[*].endpoint_config_name)
}

output "kind" {
  description = "real-time, serverless or async."
  value       = var.kind
}

output "variant_name" {
  description = "Name of the one production variant, as metrics and auto-scaling know it."
  value       = local.variant_name
}

output "role_arn" {
  description = "Role that the endpoint runs as, with its rights in place."
  value       = aws_iam_role.endpoint.arn
  depends_on  = [aws_iam_role_policy.endpoint, aws_iam_role_policy.model]
}

output "log_group_name" {
  description = "Log group of the container."
  value       = aws_cloudwatch_log_group.endpoint.name
}
