# What must exist before Terraform can run in CI, applied once per account by an administrator: the bucket for the state,
# the two roles that workflows assume (read-only to plan, and to apply), and the boundary that caps every role the latter
# makes. This root's own state stays local; keep it, or import the bucket when it is lost.
#
# All IAM names here live under the path /bootstrap/. The roles may work on role/<project>-* and policy/<project>-*, which
# no name under that path matches: they cannot touch themselves or the boundary.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  path       = "/bootstrap/"

  # Stem of an ARN by service, for this account and region.
  arn = { for service in [
    "application-autoscaling", "codebuild", "ec2", "ecr", "events", "kms", "lambda", "logs", "sagemaker", "sns", "sqs", "ssm",
  ] : service => "arn:${local.partition}:${service}:${var.region}:${local.account_id}" }

  iam_arn        = "arn:${local.partition}:iam::${local.account_id}"
  cloudwatch_arn = "arn:${local.partition}:cloudwatch:${var.region}:${local.account_id}"
  dashboard_arn  = "arn:${local.partition}:cloudwatch::${local.account_id}:dashboard/${var.project}-*"
  budget_arn     = "arn:${local.partition}:budgets::${local.account_id}:budget/${var.project}-*"

  buckets     = "arn:${local.partition}:s3:::${var.project}-*-${local.account_id}-${var.region}"
  log_groups  = ["${local.arn.logs}:log-group:/aws/*/${var.project}-*", "${local.arn.logs}:log-group:/${var.project}-*"]
  sagemaker   = ["${local.arn.sagemaker}:*/${var.project}-*"]
  studio      = ["${local.arn.sagemaker}:domain/*", "${local.arn.sagemaker}:user-profile/*"]
  keys        = "${local.arn.kms}:key/*"
  is_project  = { "aws:ResourceTag/Project" = var.project }
  for_project = { "aws:RequestTag/Project" = var.project }
  via         = { for service in ["ec2", "ecr", "elasticfilesystem", "lambda", "s3", "sagemaker", "sns", "sqs", "ssm"] : service => "${service}.${var.region}.${data.aws_partition.current.dns_suffix}" }
}
