provider "aws" {
  region              = var.region
  allowed_account_ids = var.account_id == null ? null : [var.account_id]

  default_tags {
    tags = merge({
      # Not the project's own name: the roles for CI may change what carries that tag.
      Project   = "${var.project}-bootstrap"
      ManagedBy = "terraform"
    }, var.tags)
  }
}
