# What jobs need before Python can start them: a role, their code, an image, a registry of models, a feature store, and an
# alarm for those that fail. Jobs themselves are no resources.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

# AWS keeps its containers in an account of its own, another one in some regions and partitions.
data "aws_sagemaker_prebuilt_ecr_image" "allowed" {
  for_each = var.aws_image_repositories

  repository_name = each.key
}

locals {
  account_id = data.aws_caller_identity.current.account_id
  partition  = data.aws_partition.current.partition
  region     = data.aws_region.current.name

  # Everything of this environment in SageMaker, as "<kind>/<name>" is appended.
  sagemaker_arn = "arn:${local.partition}:sagemaker:${local.region}:${local.account_id}"

  # `try`, because a missing file is reported by the variables' validation and not by an expression here.
  bundle_sha256 = try(filesha256(var.bundle_path), "")

  # By the hash of its own sources: a change of the training code makes no new image of the server. `dogbreed infra image`
  # makes the same tags.
  image_tags = { for name in local.image_names : name => substr(try(filesha256(var.image_source_paths[name]), ""), 0, 16) }
}

# The key stays and S3 keeps the earlier versions. A key with the hash in it would look safer, but replacing an object
# makes the provider delete all versions of the old one, and with it the code of running studies. A job's own copy is
# the launcher's (see the output `bundle`).
resource "aws_s3_object" "bundle" {
  bucket             = var.artifacts_bucket.name
  key                = "code/training.tar.gz"
  source             = var.bundle_path
  source_hash        = local.bundle_sha256
  content_type       = "application/gzip"
  checksum_algorithm = "SHA256"
  kms_key_id         = var.kms_key_arn
  metadata           = { sha256 = local.bundle_sha256 }
  tags               = var.tags
}

resource "aws_sagemaker_model_package_group" "models" {
  model_package_group_name        = var.prefix
  model_package_group_description = "Trained models, with their metrics and who approved them."
  tags                            = var.tags
}

resource "aws_cloudwatch_event_rule" "failed_job" {
  name        = "${var.prefix}-failed-job"
  description = "Training, tuning and processing jobs of ${var.prefix} that did not complete."
  tags        = var.tags

  event_pattern = jsonencode({
    source = ["aws.sagemaker"]
    detail-type = [
      "SageMaker Training Job State Change", "SageMaker HyperParameter Tuning Job State Change", "SageMaker Processing Job State Change",
    ]
    detail = {
      "$or" = [
        { TrainingJobName = [{ prefix = "${var.prefix}-" }], TrainingJobStatus = ["Failed"] },
        # Early stopping stops trials all the time; only a job of its own that stops is news. SageMaker marks a trial by
        # this hyperparameter.
        {
          TrainingJobName   = [{ prefix = "${var.prefix}-" }]
          TrainingJobStatus = ["Stopped"]
          HyperParameters   = { _tuning_objective_metric = [{ exists = false }] }
        },
        { HyperParameterTuningJobName = [{ prefix = "${var.prefix}-" }], HyperParameterTuningJobStatus = ["Failed", "Stopped"] },
        { ProcessingJobName = [{ prefix = "${var.prefix}-" }], ProcessingJobStatus = ["Failed", "Stopped"] },
      ]
    }
  })
}

resource "aws_cloudwatch_event_target" "failed_job" {
  rule      = aws_cloudwatch_event_rule.failed_job.name
  target_id = "alarms"
  arn       = var.alarm_topic_arn

  # Each line is a JSON string of its own: that is how EventBridge makes text out of a template. The kinds of event
  # have no name or status in common, but all name the job's ARN; a reason is absent when somebody stopped the job.
  input_transformer {
    input_paths = {
      job    = "$.resources[0]"
      reason = "$.detail.FailureReason"
      time   = "$.time"
      region = "$.region"
    }
    input_template = chomp(<<-EOT
      "The job <job> did not complete (<time>)."
      "Reason, if there is one: <reason>"
      "Logs: log group /aws/sagemaker/TrainingJobs or ProcessingJobs in <region>, streams that start with the job's name."
    EOT
    )
  }
}
