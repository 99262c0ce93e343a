output "name" {
  description = "Name of the notebook instance or of the Studio domain."
  value       = local.studio ? one(aws_sagemaker_domain.studio[*].domain_name) : one(aws_sagemaker_notebook_instance.notebook[*].name)
}

output "arn" {
  description = "ARN of the notebook instance or of the Studio domain."
  value       = local.studio ? one(aws_sagemaker_domain.studio[*].arn) : one(aws_sagemaker_notebook_instance.notebook[*].arn)
}

output "role_arn" {
  description = "Role of whoever works in the notebook, with its rights in place."
  value       = aws_iam_role.notebook.arn
  depends_on  = [aws_iam_role_policy.notebook, aws_iam_role_policy_attachment.job_launcher, aws_iam_role_policy.studio]
}

output "url" {
  description = "Address of Jupyter or of Studio. Opening it takes a presigned URL, which the console or `aws sagemaker create-presigned-…-url` makes."
  value       = local.studio ? one(aws_sagemaker_domain.studio[*].url) : "https://${one(aws_sagemaker_notebook_instance.notebook[*].url)}"
}

output "bundle" {
  description = "The package bundle that is installed at each start."
  value = {
    bucket = aws_s3_object.bundle.bucket
    key    = aws_s3_object.bundle.key
    uri    = local.bundle_uri
    sha256 = local.bundle_sha256
  }
}
