terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 6.0"
    }
  }

  # One bucket from bootstrap/ for all environments, one key for each of them: `make` passes both. By hand:
  #   terraform init -backend-config=bucket=terraform-state-<project>-<account>-<region> -backend-config=region=<region> \
  #     -backend-config=key=<project>/<environment>/terraform.tfstate
  backend "s3" {
    use_lockfile = true
  }
}
