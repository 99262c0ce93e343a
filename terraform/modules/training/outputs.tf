output "role_arn" {
  description = "Role that jobs run as, with its rights in place."
  value       = aws_iam_role.execution.arn
  depends_on  = [aws_iam_role_policy.execution]
}

output "role_name" {
  description = "Name of the role that jobs run as."
  value       = aws_iam_role.execution.name
  depends_on  = [aws_iam_role_policy.execution]
}

output "bundle" {
  description = <<-EOT
    The training code. `uri` is always the newest; a launcher copies this version to `job_uri`, unless it is there, and
    names that one in its job, so that a study's later trials and restarts run the code it began with.
  EOT
  value = {
    bucket     = aws_s3_object.bundle.bucket
    key        = aws_s3_object.bundle.key
    uri        = "s3://${aws_s3_object.bundle.bucket}/${aws_s3_object.bundle.key}"
    sha256     = local.bundle_sha256
    version_id = aws_s3_object.bundle.version_id
    job_uri    = "s3://${aws_s3_object.bundle.bucket}/code/jobs/${substr(local.bundle_sha256, 0, 16)}.tar.gz"
  }
}

output "job_launcher_policy_arn" {
  description = "Policy for whoever starts jobs; attach it to their role."
  value       = aws_iam_policy.job_launcher.arn
}

output "images" {
  description = "The images made of the present sources, `serving` and `training`. Each exists once `make image` has built it."
  value = { for name, repository in aws_ecr_repository.image : name => {
    uri        = "${repository.repository_url}:${local.image_tags[name]}"
    repository = repository.id # its name, but unlike that unknown until there is a repository to look into
    tag        = local.image_tags[name]
  } }
}

output "image_build_project_name" {
  description = "CodeBuild project that `make image` starts."
  value       = aws_codebuild_project.image.name
}

output "model_package_group_name" {
  description = "Group that trained models are registered in."
  value       = aws_sagemaker_model_package_group.models.model_package_group_name
}

output "feature_group_name" {
  description = "Feature group of the pictures' embeddings."
  value       = aws_sagemaker_feature_group.embeddings.feature_group_name
}

output "failed_job_rule_name" {
  description = "EventBridge rule that matches each failed or stopped job, for an alarm on how often it does."
  value       = aws_cloudwatch_event_rule.failed_job.name
}
