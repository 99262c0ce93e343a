output "state_bucket" {
  description = "Where `make` keeps the main root's state; with a backend file of your own, its `bucket`. Leave `encrypt` and `kms_key_id` out there, the bucket encrypts with its own key."
  value       = aws_s3_bucket.state.bucket
  depends_on = [
    aws_s3_bucket_ownership_controls.state,
    aws_s3_bucket_policy.state,
    aws_s3_bucket_server_side_encryption_configuration.state,
    aws_s3_bucket_versioning.state,
  ]
}

output "permissions_boundary_arn" {
  description = "For permissions_boundary_arn of the main root. CI can make no role without it."
  value       = aws_iam_policy.boundary.arn
}

output "build_images_policy_arn" {
  description = "Policy for whoever runs `make image`; attach it to their role."
  value       = aws_iam_policy.build_images.arn
}

output "plan_role_arn" {
  description = "Role for workflows of pull requests: role-to-assume of aws-actions/configure-aws-credentials."
  value       = aws_iam_role.ci["plan"].arn
  depends_on  = [aws_iam_role_policy_attachments_exclusive.ci]
}

output "apply_role_arn" {
  description = "Role for jobs in a protected GitHub environment."
  value       = aws_iam_role.ci["apply"].arn
  depends_on  = [aws_iam_role_policy_attachments_exclusive.ci]
}
