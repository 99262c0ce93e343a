# Each mistake is refused at plan time, by the variable that has to change.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_data "aws_sagemaker_prebuilt_ecr_image" {
    defaults = { registry_path = "763104351884.dkr.ecr.eu-central-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker" }
  }
  mock_data "aws_s3_objects" {
    defaults = { keys = ["models/a/model.tar.gz"] }
  }
}

variables {
  prefix               = "dogs-test"
  name                 = "dogs-test"
  kms_key_arn          = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  artifacts_bucket     = { name = "dogs-test-artifacts", arn = "arn:aws:s3:::dogs-test-artifacts" }
  model                = { data_url = "s3://dogs-test-artifacts/models/a/model.tar.gz" }
  rollback_alarm_names = ["dogs-test-endpoint-errors"]
  serving_image = {
    uri        = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dogs-test-serving:0123456789abcdef"
    repository = "dogs-test-serving"
    tag        = "0123456789abcdef"
  }
}

run "a_model_that_does_not_exist" {
  command = plan
  variables { model = { data_url = "s3://dogs-test-artifacts/models/b/model.tar.gz" } }
  expect_failures = [data.aws_s3_objects.model]
}

run "a_model_in_another_bucket" {
  command = plan
  variables { model = { data_url = "s3://somebody-elses/models/a/model.tar.gz" } }
  expect_failures = [var.model]
}

run "a_model_outside_models" {
  command = plan
  variables { model = { data_url = "s3://dogs-test-artifacts/output/a/model.tar.gz" } }
  expect_failures = [var.model]
}

run "a_model_with_a_wildcard" {
  command = plan
  variables { model = { data_url = "s3://dogs-test-artifacts/models/*/model.tar.gz" } }
  expect_failures = [var.model]
}

run "an_image_whose_tag_moves" {
  command = plan
  variables {
    model = {
      data_url = "s3://dogs-test-artifacts/models/a/model.tar.gz"
      image    = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dogs:latest"
    }
  }
  expect_failures = [var.model]
}

run "an_image_in_another_region" {
  command = plan
  variables {
    model = {
      data_url = "s3://dogs-test-artifacts/models/a/model.tar.gz"
      image    = "123456789012.dkr.ecr.us-west-2.amazonaws.com/dogs:1"
    }
  }
  expect_failures = [var.model]
}

run "an_image_outside_ecr" {
  command = plan
  variables {
    model = { data_url = "s3://dogs-test-artifacts/models/a/model.tar.gz", image = "docker.io/library/python:3.12" }
  }
  expect_failures = [var.model]
}

run "a_kind_that_does_not_exist" {
  command = plan
  variables { kind = "batch" }
  expect_failures = [var.kind]
}

run "a_gpu_for_our_image" {
  command = plan
  variables { instance_type = "ml.g5.xlarge" }
  expect_failures = [var.instance_type]
}

run "an_arm_processor_for_aws_container" {
  command = plan
  variables {
    instance_type = "ml.c7g.large"
    model         = { data_url = "s3://dogs-test-artifacts/models/a/model.tar.gz", image = "aws", network_isolation = false }
  }
  expect_failures = [var.instance_type]
}

run "aws_container_without_a_way_to_its_packages" {
  command = plan
  variables { model = { data_url = "s3://dogs-test-artifacts/models/a/model.tar.gz", image = "aws" } }
  expect_failures = [var.model]
}

run "aws_container_by_its_name_in_a_network_without_a_way_out" {
  command = plan
  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    model = {
      data_url          = "s3://dogs-test-artifacts/models/a/model.tar.gz"
      image             = "763104351884.dkr.ecr.eu-central-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312-ubuntu22.04-sagemaker"
      network_isolation = false
    }
  }
  expect_failures = [var.model]
}

run "an_instance_type_of_ec2" {
  command = plan
  variables { instance_type = "m5.large" }
  expect_failures = [var.instance_type]
}

run "more_than_the_most" {
  command = plan
  variables { min_instances = 5 }
  expect_failures = [var.max_instances]
}

run "no_instances_for_real_time" {
  command = plan
  variables { min_instances = 0 }
  expect_failures = [var.min_instances]
}

run "a_canary_of_one_instance" {
  command = plan
  variables { roll_out = { strategy = "canary" } }
  expect_failures = [var.roll_out]
}

run "a_canary_of_less_than_an_instance" {
  command = plan
  variables {
    min_instances = 2
    roll_out      = { strategy = "canary", size_percent = 10 }
  }
  expect_failures = [var.roll_out]
}

run "a_canary_of_more_than_half" {
  command = plan
  variables {
    min_instances = 3
    roll_out      = { strategy = "canary", size_percent = 60 }
  }
  expect_failures = [var.roll_out]
}

run "linear_steps_of_less_than_a_tenth" {
  command = plan
  variables {
    min_instances = 20
    max_instances = 20
    roll_out      = { strategy = "linear", size_percent = 9, wait_s = 60 }
  }
  expect_failures = [var.roll_out]
}

run "a_canary_that_nobody_watches" {
  command = plan
  variables {
    min_instances        = 2
    roll_out             = { strategy = "canary" }
    rollback_alarm_names = []
  }
  expect_failures = [var.rollback_alarm_names]
}

run "a_roll_out_that_cannot_end_in_time" {
  command = plan
  variables {
    min_instances = 2
    roll_out      = { strategy = "canary", wait_s = 3600 }
  }
  expect_failures = [var.roll_out]
}

run "a_roll_out_beyond_the_most_instances" {
  command = plan
  variables { roll_out = { instances = 4 } }
  expect_failures = [var.roll_out]
}

run "serverless_with_what_only_instances_have" {
  command = plan
  variables {
    kind                 = "serverless"
    data_capture_percent = 10
    schedules            = { night = { schedule = "cron(0 20 * * ? *)", min_instances = 1, max_instances = 1 } }
    roll_out             = { strategy = "canary", instances = 2 }
    serverless           = { memory_mb = 3000, max_concurrency = 201 }
  }
  expect_failures = [var.data_capture_percent, var.schedules, var.roll_out, var.serverless]
}

run "more_warm_workers_than_workers" {
  command = plan
  variables {
    kind       = "serverless"
    serverless = { max_concurrency = 2, provisioned_concurrency = 3 }
  }
  expect_failures = [var.serverless]
}

run "captured_requests_of_an_async_endpoint" {
  command = plan
  variables {
    kind                 = "async"
    data_capture_percent = 10
    async                = { backlog_per_instance = 0 }
  }
  expect_failures = [var.data_capture_percent, var.async]
}

run "numbers_and_names_out_of_range" {
  command = plan
  variables {
    name                     = "a-name-that-leaves-no-room-for-the-26-characters-of-a-configuration"
    invocations_per_instance = 0
    scale_in_cooldown_s      = 3601
    scale_out_cooldown_s     = -1
    schedules                = { night = { schedule = "20:00", min_instances = 2, max_instances = 1 } }
    log_retention_days       = 100
  }
  expect_failures = [
    var.name, var.invocations_per_instance, var.scale_in_cooldown_s, var.scale_out_cooldown_s, var.schedules, var.log_retention_days,
  ]
}
