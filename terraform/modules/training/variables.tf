variable "prefix" {
  description = "Start of every name here, and of every job that may be started."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.prefix)) && length(var.prefix) <= 28
    error_message = "Set prefix to at most 28 lower-case letters, digits and single hyphens: names of tuning jobs start with it and have 32."
  }
}

variable "tags" {
  description = "Tags of everything made here, beside the provider's default tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts images, features, logs and what jobs write."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "Policy that caps the roles made here. Null caps nothing."
  type        = string
  default     = null
}

variable "network" {
  description = "Where jobs run, and then must run. Null runs them outside any VPC, with internet."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}

variable "data_bucket" {
  description = "Bucket of the pictures; jobs only read it."
  type        = object({ name = string, arn = string })
}

variable "artifacts_bucket" {
  description = "Bucket of code/, models/, checkpoints/, output/, features/ and image/, which holds the images' sources. Needs versioning."
  type        = object({ name = string, arn = string })
}

variable "external_bucket_names" {
  description = "Other accounts' buckets that jobs may read pictures from. Their owner must allow the execution role too."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.external_bucket_names : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", name))])
    error_message = "Set external_bucket_names to bucket names, without s3:// and without a path."
  }
}

variable "external_key_arns" {
  description = "Keys that encrypt pictures in those buckets, in whatever account and region. Their policies must allow the execution role too."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.external_key_arns : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-z0-9-]+$", arn))])
    error_message = "Set external_key_arns to ARNs of keys (arn:aws:kms:<region>:<account>:key/<id>), not of aliases: rights by alias do not reach into other accounts."
  }

  validation {
    condition     = length(var.external_key_arns) == 0 || length(var.external_bucket_names) > 0
    error_message = "Name the buckets that these keys encrypt in external_bucket_names, or leave external_key_arns out."
  }
}

variable "bundle_path" {
  description = "Archive with the training code and all the wheels it needs but PyTorch's (training.tar.gz); of those, AWS's container installs what it lacks."
  type        = string

  validation {
    condition     = fileexists(var.bundle_path)
    error_message = "There is no ${var.bundle_path}. Run make package."
  }
}

variable "image_source_paths" {
  description = "Archives with the build contexts of the images (serving-image.zip, training-image.zip). Their hashes are the images' tags; what is in them, the build is given when it starts."
  type        = object({ serving = string, training = string })

  validation {
    condition     = fileexists(var.image_source_paths.serving) && fileexists(var.image_source_paths.training)
    error_message = "There is no ${var.image_source_paths.serving} or no ${var.image_source_paths.training}. Run make package."
  }
}

variable "aws_image_repositories" {
  description = "AWS's own container repositories that jobs may pull from, besides our image for them."
  type        = set(string)
  default     = ["pytorch-training"]
  nullable    = false
}

variable "image_retention_count" {
  description = "Newest images kept of each repository, at 0.10 USD a GB and month: the server's take about 0.1 GB each, those for jobs 3. An endpoint on an older one cannot start instances."
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.image_retention_count >= 2 && floor(var.image_retention_count) == var.image_retention_count
    error_message = "Set image_retention_count to a whole number of at least 2, so that the image before the newest stays for going back."
  }
}

variable "delete_images_on_destroy" {
  description = "Whether `destroy` deletes repositories that hold images. False makes it stop there instead."
  type        = bool
  default     = false
  nullable    = false
}

variable "log_retention_days" {
  description = "Days that logs of image builds are kept, one of the values CloudWatch knows."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "Set log_retention_days to a value that CloudWatch knows: 30, 90, 365, 731, …"
  }
}

variable "alarm_topic_arn" {
  description = "SNS topic that hears of failed jobs; its policy must admit EventBridge."
  type        = string
}

variable "passable_role_arns" {
  description = "Roles that a job may hand to jobs or models it makes itself. A plain training job makes none."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.passable_role_arns : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/[^*?]+$", arn))])
    error_message = "Set passable_role_arns to full role ARNs (arn:aws:iam::<account>:role/<name>), without wildcards."
  }
}

variable "feature_store" {
  description = "online: also keep the newest embedding of every picture for look-ups in milliseconds, paid by request and GB. Changing it makes the feature group anew; what lies in S3 stays."
  type        = object({ online = optional(bool, false) })
  default     = {}
  nullable    = false
}
