# How the parts go together: what an environment switches on, and which mistakes the root itself names.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment = "dev"
}

run "dev_has_its_own_network_and_no_endpoint_before_there_is_a_model" {
  command = plan

  assert {
    condition     = length(module.network) == 1 && length(module.notebook) == 1 && length(module.classify_function) == 1
    error_message = "Network, notebook and function are on unless switched off."
  }
  assert {
    condition     = module.endpoint.configuration_name == null && local.model == null
    error_message = "There is no model, so there must be no endpoint."
  }
  assert {
    condition     = local.prefix == "dogbreed-dev" && endswith(local.endpoint_arn, ":123456789012:endpoint/dogbreed-dev")
    error_message = "Every name begins with project and environment."
  }
}

run "the_model_of_this_environment_goes_live_and_no_other" {
  command = plan

  variables {
    models = {
      dev  = { data_url = "s3://dogbreed-dev-artifacts-123456789012-us-east-1/models/a/model.tar.gz" }
      prod = { data_url = "s3://dogbreed-prod-artifacts-123456789012-us-east-1/models/b/model.tar.gz" }
    }
  }

  assert {
    condition     = endswith(local.model.data_url, "/models/a/model.tar.gz")
    error_message = "dev serves the model of another environment."
  }
  assert {
    condition     = length(module.observability.rollback_alarm_names) > 0
    error_message = "The endpoint's first apply has to declare the alarms that take an update back."
  }
}

run "what_builds_the_images_is_told_apart_from_what_is_made_with_them" {
  command = plan

  assert {
    condition = (
      output.image_build.region == "us-east-1" && output.image_build.project == "dogbreed-dev-image" &&
      output.image_build.artifacts_bucket == "dogbreed-dev-artifacts-123456789012-us-east-1" &&
      join(" ", sort(keys(output.image_build.images))) == "serving training"
    )
    error_message = "`make image` cannot find its bucket, project or images."
  }
}

run "a_model_in_aws_container_needs_a_way_out" {
  command = plan

  variables {
    network = { enabled = false }
    models  = { dev = { data_url = "s3://dogbreed-dev-artifacts-123456789012-us-east-1/models/a/model.tar.gz", image = "aws", network_isolation = false } }
  }

  assert {
    condition     = local.model.image == "aws" && !local.model.network_isolation
    error_message = "What the model says of its container does not arrive."
  }
}

run "everything_optional_can_be_left_out" {
  command = plan

  variables {
    network           = { enabled = false }
    notebook          = { kind = "none" }
    classify_function = { enabled = false }
  }

  assert {
    condition     = length(module.network) + length(module.notebook) + length(module.classify_function) == 0 && local.network == null
    error_message = "What is switched off is still there."
  }
}

run "a_serverless_endpoint_decides_what_the_function_may_send_and_wait_for" {
  command = plan

  variables {
    endpoint = { kind = "serverless" }
  }

  assert {
    condition     = local.function_defaults == { timeout_s = 60, picture_max_mib = 3, payload_max_mb = 4 } && module.classify_function[0].watched.timeout_s == 60
    error_message = "Larger pictures would be refused, and calls cut off while the endpoint starts."
  }
}

run "what_the_user_says_about_the_function_goes_first" {
  command = plan

  variables {
    endpoint          = { kind = "serverless" }
    classify_function = { timeout_s = 45, picture_max_mib = 2, fetch_exempt_hosts = ["127.0.0.1:8000"] }
  }

  assert {
    condition     = module.classify_function[0].watched.timeout_s == 45
    error_message = "The default for serverless endpoints overrules the user."
  }
}

run "an_endpoint_on_instances_leaves_the_function_its_own_defaults" {
  command = plan

  assert {
    condition     = module.endpoint.kind == "real-time" && module.classify_function[0].watched.timeout_s == 29
    error_message = "The function's defaults are not those of its module."
  }
}

run "unknown_environment" {
  command = plan

  variables {
    environment = "staging"
  }
  expect_failures = [var.environment]
}

run "model_of_an_unknown_environment" {
  command = plan

  variables {
    models = { staging = { data_url = "s3://x/models/a.tar.gz" } }
  }
  expect_failures = [var.models]
}

run "names_that_would_not_fit" {
  command = plan

  variables {
    project                  = "A-name-much-too-long-for-a-bucket"
    region                   = "Frankfurt"
    account_id               = "12"
    permissions_boundary_arn = "boundary"
  }
  expect_failures = [var.project, var.region, var.account_id, var.permissions_boundary_arn]
}

run "hyphens_that_the_modules_refuse" {
  command = plan

  variables {
    project = "dog--breed"
  }
  expect_failures = [var.project]
}

run "tags_that_would_overrule_the_roots" {
  command = plan

  variables {
    tags = { Team = "vision", Environment = "prod" }
  }
  expect_failures = [var.tags]
}

run "studio_without_a_network" {
  command = plan

  variables {
    network  = { enabled = false }
    notebook = { kind = "studio" }
  }
  expect_failures = [var.notebook]
}

run "a_function_that_could_not_answer_or_has_nowhere_to_go" {
  command = plan

  variables {
    endpoint          = { kind = "async" }
    network           = { enabled = false }
    classify_function = { in_network = true }
  }
  expect_failures = [var.classify_function]
}
