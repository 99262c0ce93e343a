# One environment as it is, with a model. Its variables come with -var-file, and what they make is read from the plan:
# python/tests/test_terraform_modules.py does both.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "environment" {
  command = plan

  variables {
    models = {
      local = { data_url = "s3://dogbreed-local-artifacts-123456789012-us-east-1/models/a/model.tar.gz" }
      dev   = { data_url = "s3://dogbreed-dev-artifacts-123456789012-us-east-1/models/a/model.tar.gz" }
      prod  = { data_url = "s3://dogbreed-prod-artifacts-123456789012-us-east-1/models/a/model.tar.gz" }
    }
  }
}
