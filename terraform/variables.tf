# What a user decides, by use case. An attribute left out takes the default of its module, where it is explained and
# checked: modules/<name>/variables.tf.

variable "project" {
  description = "First part of every name; two projects in one account need two names."
  type        = string
  default     = "dogbreed"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.project)) && length(var.project) >= 3 && length(var.project) <= 16
    error_message = "Set project to 3 to 16 lower-case letters, digits and single hyphens, starting with a letter: it becomes part of bucket names."
  }
}

variable "environment" {
  description = "Second part of every name, and which of the models is live: local, dev or prod."
  type        = string

  validation {
    condition     = contains(["local", "dev", "prod"], var.environment)
    error_message = "Unknown environment \"${var.environment}\": choose local, dev or prod, or add it here with a file environments/<name>.tfvars."
  }
}

variable "region" {
  description = "The one AWS region everything lives in."
  type        = string
  default     = "us-east-1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "Set region to the code of an AWS region, such as eu-central-1."
  }
}

variable "account_id" {
  description = "The account this environment belongs to; Terraform then refuses to touch any other. Null accepts whichever the credentials name."
  type        = string
  default     = null

  validation {
    condition     = var.account_id == null || can(regex("^[0-9]{12}$", var.account_id))
    error_message = "Set account_id to the 12 digits of an AWS account, in quotes."
  }
}

variable "tags" {
  description = "Further tags on every resource, beside Project, Environment and ManagedBy."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(setintersection(keys(var.tags), ["Project", "Environment", "ManagedBy"])) == 0
    error_message = "Leave Project, Environment and ManagedBy out of tags: project and environment decide them, and policies rely on them."
  }
}

variable "permissions_boundary_arn" {
  description = "Policy that caps every role made here; bootstrap/ makes one. Null caps nothing."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "Set permissions_boundary_arn to the ARN of an IAM policy (arn:aws:iam::<account>:policy/<name>)."
  }
}

variable "log_retention_days" {
  description = "Days that all logs are kept, of which CloudWatch knows 30, 90, 365, 731 and others. Writing costs 0.50 USD per GB, keeping 0.03 a month."
  type        = number
  default     = null
}

variable "data" {
  description = <<-EOT
    Pictures and results.
    delete_on_destroy: `destroy` empties and deletes the buckets; false makes it stop before them.
    reader_account_ids: other accounts that may read the pictures here.
    external_bucket_names: buckets of other accounts that jobs may read pictures from (their owner must allow it too).
    external_key_arns: keys that encrypt the pictures in those buckets, where it is not S3's own.
  EOT
  type = object({
    delete_on_destroy         = optional(bool)
    reader_account_ids        = optional(set(string))
    external_bucket_names     = optional(set(string))
    external_key_arns         = optional(set(string))
    checkpoint_retention_days = optional(number)
    request_retention_days    = optional(number)
    noncurrent_retention_days = optional(number)
  })
  default  = {}
  nullable = false
}

variable "network" {
  description = <<-EOT
    A VPC without a way out, in which jobs, endpoint, notebook and training host run. Its interface endpoints cost about
    7.30 USD a month each and zone; without it the workloads use networks that AWS runs, and the notebook has internet.
  EOT
  type = object({
    enabled = optional(bool, true)
    cidr    = optional(string)
    zones   = optional(number)
  })
  default  = {}
  nullable = false
}

variable "notebook" {
  description = "Where people work: an instance, a Studio domain (needs the network) or nothing. It stops after idle_minutes."
  type = object({
    kind          = optional(string, "instance")
    instance_type = optional(string)
    volume_gb     = optional(number)
    idle_minutes  = optional(number)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["instance", "studio", "none"], var.notebook.kind)
    error_message = "Set notebook.kind to instance, studio or none."
  }
  validation {
    condition     = var.notebook.kind != "studio" || var.network.enabled
    error_message = "A Studio domain lives in a VPC: set network.enabled = true, or notebook.kind = \"instance\"."
  }
}

variable "training" {
  description = "Jobs. passable_role_arns: roles that a job may hand to SageMaker (none is needed by this project's own jobs)."
  type = object({
    passable_role_arns   = optional(set(string))
    online_feature_store = optional(bool)
  })
  default  = {}
  nullable = false
}

variable "models" {
  description = "The live model of each environment, kept in model.auto.tfvars.json. An environment without an entry has no endpoint. Every attribute is explained in modules/endpoint/variables.tf."
  type = map(object({
    data_url          = string
    image             = optional(string)
    environment       = optional(map(string))
    network_isolation = optional(bool)
    metrics           = optional(map(number))
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for name in keys(var.models) : contains(["local", "dev", "prod"], name)])
    error_message = "The keys of models are environments: local, dev or prod."
  }
}

variable "check_image" {
  description = "Whether a plan looks into ECR for the image of a model that names none. TF_VAR_check_image=false for plans of pull requests, whose image is built later, and to destroy what was never built; false in the file where none is pulled (the local AWS)."
  type        = bool
  default     = true
  nullable    = false
}

variable "endpoint" {
  description = "How the model is served: size, auto-scaling, roll-out. Every attribute is explained in modules/endpoint/variables.tf, latency_p99_ms in modules/observability/variables.tf."
  type = object({
    kind                     = optional(string)
    instance_type            = optional(string)
    min_instances            = optional(number)
    max_instances            = optional(number)
    invocations_per_instance = optional(number)
    scale_in_cooldown_s      = optional(number)
    scale_out_cooldown_s     = optional(number)
    data_capture_percent     = optional(number)
    latency_p99_ms           = optional(number)
    schedules = optional(map(object({
      schedule      = string
      timezone      = optional(string)
      min_instances = number
      max_instances = number
    })))
    roll_out = optional(object({
      strategy           = optional(string)
      size_percent       = optional(number)
      wait_s             = optional(number)
      termination_wait_s = optional(number)
      timeout_s          = optional(number)
      instances          = optional(number)
    }))
    serverless = optional(object({
      memory_mb               = optional(number)
      max_concurrency         = optional(number)
      provisioned_concurrency = optional(number)
    }))
    async = optional(object({
      concurrency_per_instance = optional(number)
      backlog_per_instance     = optional(number)
      success_topic_arn        = optional(string)
      error_topic_arn          = optional(string)
    }))
  })
  default  = {}
  nullable = false
}

variable "classify_function" {
  description = "The Lambda function that fetches a picture and asks the endpoint. in_network = true cuts it off from public URLs: callers then send the picture itself."
  type = object({
    enabled                     = optional(bool, true)
    memory_mb                   = optional(number)
    timeout_s                   = optional(number)
    picture_max_mib             = optional(number)
    fetch_exempt_hosts          = optional(set(string))
    provisioned_concurrency     = optional(number)
    provisioned_concurrency_max = optional(number)
    reserved_concurrency        = optional(number)
    url_auth                    = optional(string)
    page                        = optional(bool)
    in_network                  = optional(bool, false)
  })
  default  = {}
  nullable = false

  validation {
    condition     = !var.classify_function.enabled || var.endpoint.kind != "async"
    error_message = "An async endpoint answers through S3, so the function would have nothing to return: set classify_function.enabled = false, or endpoint.kind to real-time or serverless."
  }
  validation {
    condition     = !var.classify_function.in_network || var.network.enabled
    error_message = "There is no network to put the function into: set network.enabled = true, or leave classify_function.in_network out."
  }
}

variable "ec2_trainer" {
  description = "A host of its own for training, without SageMaker. running = true starts it; it trains once and stops itself."
  type = object({
    running       = optional(bool)
    instance_type = optional(string)
    spot          = optional(bool)
    volume_gb     = optional(number)
    max_hours     = optional(number)
    ami_id        = optional(string)
    ami_owners    = optional(set(string))
    data_url      = optional(string)
    arguments     = optional(map(string))
  })
  default  = {}
  nullable = false
}

variable "alarms" {
  description = "Who hears of trouble, and the monthly budget. A subscription must be confirmed by the link in the e-mail."
  type = object({
    notify_emails      = optional(set(string))
    monthly_budget_usd = optional(number)
    budget_tag         = optional(object({ key = string, value = string }))
  })
  default  = {}
  nullable = false
}
