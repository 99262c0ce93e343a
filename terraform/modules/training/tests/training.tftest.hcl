mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_data "aws_sagemaker_prebuilt_ecr_image" {
    defaults = { registry_id = "763104351884" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mocked" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/mocked" }
  }
  mock_resource "aws_ecr_repository" {
    defaults = { arn = "arn:aws:ecr:eu-central-1:123456789012:repository/mocked" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/codebuild/dogbreed-dev-image" }
  }
  mock_resource "aws_sagemaker_model_package_group" {
    defaults = { arn = "arn:aws:sagemaker:eu-central-1:123456789012:model-package-group/dogbreed-dev" }
  }
  mock_resource "aws_s3_object" {
    defaults = { version_id = "version-1" }
  }
}

variables {
  prefix             = "dogbreed-dev"
  kms_key_arn        = "arn:aws:kms:eu-central-1:123456789012:key/11111111-1111-1111-1111-111111111111"
  data_bucket        = { name = "pictures", arn = "arn:aws:s3:::pictures" }
  artifacts_bucket   = { name = "artifacts", arn = "arn:aws:s3:::artifacts" }
  alarm_topic_arn    = "arn:aws:sns:eu-central-1:123456789012:dogbreed-dev-alarms"
  bundle_path        = "versions.tf" # any file
  image_source_paths = { serving = "buildspec.yml", training = "main.tf" }
  network = {
    vpc_id             = "vpc-1"
    subnet_ids         = ["subnet-1", "subnet-2"]
    security_group_ids = ["sg-1"]
  }
}

override_resource {
  target = aws_ecr_repository.image["serving"]
  values = { id = "dogbreed-dev-serving", arn = "arn:aws:ecr:eu-central-1:123456789012:repository/dogbreed-dev-serving", repository_url = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dogbreed-dev-serving" }
}

override_resource {
  target = aws_ecr_repository.image["training"]
  values = { id = "dogbreed-dev-training", arn = "arn:aws:ecr:eu-central-1:123456789012:repository/dogbreed-dev-training", repository_url = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dogbreed-dev-training" }
}

run "in_a_network" {
  command = apply

  variables {
    external_bucket_names = ["their-dogs"]
    external_key_arns     = ["arn:aws:kms:us-east-1:210987654321:key/22222222-2222-2222-2222-222222222222"]
  }

  # ------------------------------------------------------------------------------------------------- all policies
  assert {
    condition = alltrue(flatten([
      for policy in [aws_iam_role_policy.execution.policy, aws_iam_role_policy.feature_store.policy, aws_iam_role_policy.image_build.policy, aws_iam_policy.job_launcher.policy] : [
        for statement in jsondecode(policy).Statement : [for action in flatten([statement.Action]) : !strcontains(action, "*")]
    ]]))
    error_message = "An action is granted by a pattern."
  }

  assert {
    condition = sort(flatten([
      for policy in [aws_iam_role_policy.execution.policy, aws_iam_role_policy.feature_store.policy, aws_iam_role_policy.image_build.policy, aws_iam_policy.job_launcher.policy] : [
        for statement in jsondecode(policy).Statement : statement.Action if contains(flatten([statement.Resource]), "*")
      ]])) == sort([
      # These know no resources, each for the reason beside it in the module; anything else must name its own.
      "cloudwatch:PutMetricData",
      "ecr:GetAuthorizationToken", "ecr:GetAuthorizationToken",
      "ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs",
      "sagemaker:ListHyperParameterTuningJobs", "sagemaker:ListProcessingJobs", "sagemaker:ListTrainingJobs",
    ])
    error_message = "An action is granted on all resources that could name them."
  }

  assert {
    condition = alltrue([
      for role in [aws_iam_role.execution, aws_iam_role.feature_store, aws_iam_role.image_build] : alltrue([
        for statement in jsondecode(role.assume_role_policy).Statement :
        statement.Condition.StringEquals["aws:SourceAccount"] == "123456789012" && length(flatten([statement.Principal.Service])) == 1
    ])])
    error_message = "A role can be assumed for another account, or by several services."
  }

  # ---------------------------------------------------------------------------------------------------------- job
  assert {
    condition = one([for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s.Resource if s.Sid == "WriteArtifacts"]) == [
      "arn:aws:s3:::artifacts/checkpoints/*", "arn:aws:s3:::artifacts/features/*", "arn:aws:s3:::artifacts/output/*",
    ]
    error_message = "A job writes elsewhere, or not where it must."
  }

  assert {
    condition = !anytrue(flatten([
      for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : [
        for action in flatten([s.Action]) : startswith(action, "s3:Put") || startswith(action, "s3:Delete")
      ] if anytrue([for r in flatten([s.Resource]) : strcontains(r, "pictures") || strcontains(r, "their-dogs")])
    ]))
    error_message = "A job may change pictures."
  }

  assert {
    condition     = contains(one([for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s.Resource if s.Sid == "ReadPictures"]), "arn:aws:s3:::their-dogs/*")
    error_message = "A job cannot read the other account's pictures."
  }

  assert {
    condition = one([for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s if s.Sid == "DecryptPicturesOfOthers"]) == {
      Sid       = "DecryptPicturesOfOthers"
      Effect    = "Allow"
      Action    = "kms:Decrypt"
      Resource  = ["arn:aws:kms:us-east-1:210987654321:key/22222222-2222-2222-2222-222222222222"]
      Condition = { StringLike = { "kms:ViaService" = "s3.*.amazonaws.com" } }
    }
    error_message = "A job cannot decrypt the other account's pictures, or does more with the key."
  }

  assert {
    condition = one([for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s.Resource if s.Sid == "PullImages"]) == [
      "arn:aws:ecr:eu-central-1:123456789012:repository/dogbreed-dev-training",
      "arn:aws:ecr:eu-central-1:763104351884:repository/pytorch-training",
    ]
    error_message = "A job pulls other images than ours for jobs and AWS's PyTorch."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s.Condition.ArnEquals["ec2:Subnet"] if s.Sid == "ManageNetworkInterfaces"])[1] == "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-2"
    error_message = "A job may touch network interfaces outside our subnets."
  }

  assert {
    condition     = !contains([for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s.Sid], "PassRoles")
    error_message = "A job may pass roles although none was named."
  }

  assert {
    condition = jsondecode(aws_iam_role.execution.assume_role_policy).Statement[0].Condition == {
      StringEquals = { "aws:SourceAccount" = "123456789012" }
      ArnLikeIfExists = { "aws:SourceArn" = [
        for kind in ["training-job", "hyper-parameter-tuning-job", "processing-job"] : "arn:aws:sagemaker:eu-central-1:123456789012:${kind}/dogbreed-dev-*"
      ] }
    }
    error_message = "The execution role serves other jobs too, or no job that comes without an ARN."
  }

  # ----------------------------------------------------------------------------------------------------- launcher
  assert {
    condition     = alltrue(flatten([for s in jsondecode(aws_iam_policy.job_launcher.policy).Statement : [for r in flatten([s.Resource]) : endswith(r, "/dogbreed-dev-*")] if s.Sid == "CreateJobs"]))
    error_message = "A launcher may create jobs of other names."
  }

  assert {
    condition = one([for s in jsondecode(aws_iam_policy.job_launcher.policy).Statement : s.Condition if s.Sid == "CreateJobs"]) == {
      ArnEquals                   = { "sagemaker:OutputKmsKey" = var.kms_key_arn }
      ArnEqualsIfExists           = { "sagemaker:VolumeKmsKey" = var.kms_key_arn }
      "ForAllValues:StringEquals" = { "sagemaker:VpcSubnets" = ["subnet-1", "subnet-2"], "sagemaker:VpcSecurityGroupIds" = ["sg-1"] }
      Null                        = { "sagemaker:VpcSubnets" = "false", "sagemaker:VpcSecurityGroupIds" = "false" }
    }
    error_message = "A launcher may create jobs outside the network or with another key."
  }

  assert {
    condition = one([for s in jsondecode(aws_iam_policy.job_launcher.policy).Statement : s if s.Sid == "PassExecutionRole"]) == {
      Sid       = "PassExecutionRole"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = aws_iam_role.execution.arn
      Condition = { StringEquals = { "iam:PassedToService" = "sagemaker.amazonaws.com" } }
    }
    error_message = "A launcher passes more than the execution role, or to other services."
  }

  assert {
    condition = one([for s in jsondecode(aws_iam_policy.job_launcher.policy).Statement : s if s.Effect == "Deny"]) == {
      Sid       = "NeverReplaceModels"
      Effect    = "Deny"
      Action    = "s3:PutObject"
      Resource  = "arn:aws:s3:::artifacts/models/*"
      Condition = { Null = { "s3:if-none-match" = "true" }, Bool = { "s3:ObjectCreationOperation" = "true" } }
    }
    error_message = "A launcher may replace an archive that a live endpoint reads."
  }

  # ---------------------------------------------------------------------------------------------- bundle and image
  assert {
    condition     = aws_s3_object.bundle.key == "code/training.tar.gz" && aws_s3_object.bundle.source_hash == filesha256("versions.tf")
    error_message = "The bundle's key moves with its content, or a change of content goes unnoticed."
  }

  assert {
    condition     = output.bundle.job_uri == "s3://artifacts/code/jobs/${substr(filesha256("versions.tf"), 0, 16)}.tar.gz"
    error_message = "A job's copy of the bundle is not named after its content."
  }

  assert {
    condition = { for name, image in output.images : name => image.uri } == {
      serving  = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dogbreed-dev-serving:${substr(filesha256("buildspec.yml"), 0, 16)}"
      training = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dogbreed-dev-training:${substr(filesha256("main.tf"), 0, 16)}"
    }
    error_message = "An image's tag is not the hash of its own sources."
  }

  assert {
    condition     = output.images.serving == { uri = output.images.serving.uri, repository = "dogbreed-dev-serving", tag = substr(filesha256("buildspec.yml"), 0, 16) }
    error_message = "The server's image cannot be found in its repository."
  }

  assert {
    condition = alltrue([
      for repository in aws_ecr_repository.image :
      repository.image_tag_mutability == "IMMUTABLE" && repository.image_scanning_configuration[0].scan_on_push && !repository.force_delete && repository.encryption_configuration[0].kms_key == var.kms_key_arn
    ])
    error_message = "Images can be replaced, are not scanned, lie there without our key, or go with a destroy."
  }

  assert {
    condition = { for s in jsondecode(aws_iam_role_policy.image_build.policy).Statement : s.Sid => s.Resource if contains(["ReadSource", "PushImages"], s.Sid) } == {
      ReadSource = "arn:aws:s3:::artifacts/image/*"
      PushImages = ["arn:aws:ecr:eu-central-1:123456789012:repository/dogbreed-dev-serving", "arn:aws:ecr:eu-central-1:123456789012:repository/dogbreed-dev-training"]
    }
    error_message = "A build reads more than its source, or pushes elsewhere than to the two repositories."
  }

  assert {
    condition = join(" ", sort(one([for s in jsondecode(aws_iam_role_policy.image_build.policy).Statement : s.Action if s.Sid == "PushImages"]))) == join(" ", [
      "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
      "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
    ])
    error_message = "A push lacks one of the rights that AWS lists for it, or has one that it does not need."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_policy.job_launcher.policy).Statement : s.Resource if s.Sid == "FindImages"]) == "arn:aws:ecr:eu-central-1:123456789012:repository/dogbreed-dev-training"
    error_message = "A launcher cannot find the image for jobs."
  }

  # ----------------------------------------------------------------------------------------------------- features
  assert {
    condition     = length(aws_sagemaker_feature_group.embeddings.online_store_config) == 0 && aws_sagemaker_feature_group.embeddings.offline_store_config[0].disable_glue_table_creation
    error_message = "The feature group costs by the hour, or leaves a Glue table behind."
  }

  assert {
    condition     = contains([for f in aws_sagemaker_feature_group.embeddings.feature_definition : f.feature_name if f.feature_type == "String"], aws_sagemaker_feature_group.embeddings.record_identifier_feature_name)
    error_message = "The record's identifier is not one of the features."
  }

  # ------------------------------------------------------------------------------------------------------- alarms
  assert {
    condition = alltrue([
      for choice in jsondecode(aws_cloudwatch_event_rule.failed_job.event_pattern).detail["$or"] :
      try(choice.TrainingJobName, choice.HyperParameterTuningJobName, choice.ProcessingJobName)[0].prefix == "dogbreed-dev-"
    ])
    error_message = "Another environment's failures raise our alarm."
  }

  assert {
    condition = (
      contains(jsondecode(aws_cloudwatch_event_rule.failed_job.event_pattern).detail-type, "SageMaker Processing Job State Change")
      && one([for choice in jsondecode(aws_cloudwatch_event_rule.failed_job.event_pattern).detail["$or"] : choice.ProcessingJobStatus if can(choice.ProcessingJobStatus)]) == ["Failed", "Stopped"]
    )
    error_message = "Nobody hears of a processing job that failed."
  }

  assert {
    condition     = aws_cloudwatch_event_target.failed_job.arn == var.alarm_topic_arn && alltrue([for line in split("\n", trimspace(aws_cloudwatch_event_target.failed_job.input_transformer[0].input_template)) : can(jsondecode(line))])
    error_message = "The message about a failed job is not text that EventBridge sends."
  }
}

run "outside_a_network" {
  command = apply

  variables {
    network                  = null
    passable_role_arns       = ["arn:aws:iam::123456789012:role/pipeline"]
    feature_store            = { online = true }
    delete_images_on_destroy = true
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.execution.policy, "ec2:") && !strcontains(aws_iam_policy.job_launcher.policy, "VpcSubnets")
    error_message = "Without a network, rights on networks are left."
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s if s.Sid == "PassRoles"]).Resource == ["arn:aws:iam::123456789012:role/pipeline"]
    error_message = "The named role cannot be passed."
  }

  assert {
    condition     = aws_sagemaker_feature_group.embeddings.online_store_config[0].security_config[0].kms_key_id == var.kms_key_arn
    error_message = "The online store is not made, or not encrypted with our key."
  }

  assert {
    condition     = alltrue([for repository in aws_ecr_repository.image : repository.force_delete])
    error_message = "Images keep the repository although they may be deleted."
  }

  assert {
    condition     = alltrue([for role in [aws_iam_role.execution, aws_iam_role.feature_store, aws_iam_role.image_build] : role.permissions_boundary == var.permissions_boundary_arn])
    error_message = "A role is outside the permissions boundary."
  }
}

run "bad_input" {
  command = plan

  variables {
    prefix                = "Dog_Breed"
    bundle_path           = "nothing.tar.gz"
    image_source_paths    = { serving = "versions.tf", training = "nothing.zip" }
    external_bucket_names = ["s3://their-dogs"]
    passable_role_arns    = ["arn:aws:iam::123456789012:role/*"]
    image_retention_count = 1
    log_retention_days    = 100
  }

  expect_failures = [
    var.prefix,
    var.bundle_path,
    var.image_source_paths,
    var.external_bucket_names,
    var.passable_role_arns,
    var.image_retention_count,
    var.log_retention_days,
  ]
}

run "longest_names_of_the_root" {
  command = apply

  variables {
    prefix           = "sixteen-letters1-local"
    kms_key_arn      = "arn:aws:kms:ap-southeast-1:123456789012:key/11111111-1111-1111-1111-111111111111"
    data_bucket      = { name = "data", arn = "arn:aws:s3:::sixteen-letters1-local-data-123456789012-ap-southeast-1" }
    artifacts_bucket = { name = "artifacts", arn = "arn:aws:s3:::sixteen-letters1-local-artifacts-123456789012-ap-southeast-1" }
    network = {
      vpc_id             = "vpc-0123456789abcdef0"
      subnet_ids         = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1", "subnet-0123456789abcdef2"]
      security_group_ids = ["sg-0123456789abcdef0"]
    }
  }

  override_data {
    target = data.aws_region.current
    values = { name = "ap-southeast-1" }
  }

  assert {
    condition     = length(aws_iam_policy.job_launcher.policy) <= 6144
    error_message = "IAM takes 6,144 characters of a managed policy, and this one has ${length(aws_iam_policy.job_launcher.policy)}."
  }
}

run "alias_of_a_key" {
  command = plan

  variables {
    external_bucket_names = ["their-dogs"]
    external_key_arns     = ["arn:aws:kms:us-east-1:210987654321:alias/theirs"]
  }

  expect_failures = [var.external_key_arns]
}

run "keys_without_buckets" {
  command = plan

  variables {
    external_key_arns = ["arn:aws:kms:us-east-1:210987654321:key/22222222-2222-2222-2222-222222222222"]
  }

  expect_failures = [var.external_key_arns]
}

run "prefix_too_long_for_a_tuning_job" {
  command = plan

  variables {
    prefix = "dogbreed-with-a-name-that-is-long"
  }

  expect_failures = [var.prefix]
}
