variable "project" {
  description = "The project that CI may work on: whatever is named <project>-*. So dog would cover dog-breed too: let no project's name be another's with a hyphen and more. The same as `project` of the main root."
  type        = string
  default     = "dogbreed"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.project)) && length(var.project) >= 3 && length(var.project) <= 16
    error_message = "Set project to 3 to 16 lower-case letters, digits and single hyphens, starting with a letter: it becomes part of bucket names."
  }
  validation {
    condition     = !startswith("terraform-state-${var.project}-", "${var.project}-")
    error_message = "Choose another project than ${var.project}: the bucket of the state is named terraform-state-…, and CI may change whatever is named ${var.project}-*."
  }
}

variable "region" {
  description = "Region of the project and its state. The roles work in this one only."
  type        = string
  default     = "us-east-1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "Set region to the code of an AWS region, such as eu-central-1."
  }
}

variable "account_id" {
  description = "The account this is for; Terraform then refuses to touch any other. Null accepts whichever the credentials name."
  type        = string
  default     = null

  validation {
    condition     = var.account_id == null || can(regex("^[0-9]{12}$", var.account_id))
    error_message = "Set account_id to the 12 digits of an AWS account, in quotes."
  }
}

variable "tags" {
  description = "Further tags on every resource, beside Project and ManagedBy."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = !contains(keys(var.tags), "Project")
    error_message = "Leave Project out of tags: it keeps this state bucket's key apart from what CI may change."
  }
}

variable "github_repository" {
  description = "Repository whose workflows may assume the roles, as owner/name."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "Set github_repository to owner/name, as in the repository's address."
  }
}

variable "github_environments" {
  description = "GitHub environments whose jobs may apply. Protect each of them in the repository's settings (required reviewers, protected branches only): that protection is what stands between a push and this account."
  type        = set(string)
  default     = ["dev", "prod"]
  nullable    = false

  validation {
    condition     = length(var.github_environments) > 0 && alltrue([for name in var.github_environments : can(regex("^[A-Za-z0-9_-]+$", name))])
    error_message = "Set github_environments to at least one name of letters, digits, hyphens and underscores, without wildcards."
  }
}

variable "github_oidc_provider_arn" {
  description = "The account's identity provider for GitHub where it has one already (an account can have only one). Null makes it."
  type        = string
  default     = null

  validation {
    condition     = var.github_oidc_provider_arn == null || can(regex("^arn:[a-z-]+:iam::[0-9]{12}:oidc-provider/token.actions.githubusercontent.com$", var.github_oidc_provider_arn))
    error_message = "Set github_oidc_provider_arn to arn:aws:iam::<account>:oidc-provider/token.actions.githubusercontent.com, or to null to make it."
  }
}

variable "external_bucket_names" {
  description = "Buckets of other accounts that jobs may read pictures from, as data.external_bucket_names of the main root: the boundary caps reading to these and the project's own."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.external_bucket_names : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))])
    error_message = "Set external_bucket_names to bucket names, without s3:// and without wildcards."
  }
}
