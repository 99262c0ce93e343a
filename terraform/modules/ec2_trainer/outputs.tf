output "launch_template_id" {
  description = "Template of the host, for launching further ones by hand."
  value       = aws_launch_template.trainer.id

  depends_on = [aws_iam_role_policy.trainer]
}

output "instance_id" {
  description = "The host, also when it has stopped itself; null when running is false. `aws ssm start-session --target <id>` opens a shell on it."
  value       = one(aws_instance.trainer[*].id)
}

output "log_group_name" {
  description = "Where the host logs, one stream per host: `aws logs tail <name> --follow`."
  value       = aws_cloudwatch_log_group.trainer.name
}

output "role_arn" {
  description = "The host's role."
  value       = aws_iam_role.trainer.arn
}

output "output_url" {
  description = "Folder of the results: one folder per training, with model.tar.gz, metrics.json, report.html and, written last, done.json."
  value       = local.output_url
}
