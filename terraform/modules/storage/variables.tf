variable "prefix" {
  description = "Stem of every name, such as dogbreed-dev."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,23}[a-z0-9]$", var.prefix))
    error_message = "Set prefix to 3 to 25 lower-case letters, digits and hyphens, starting with a letter: with account and region it must fit into the 63 characters of a bucket name."
  }
}

variable "tags" {
  description = "Tags on every resource, beside the provider's default tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "delete_data_on_destroy" {
  description = "`destroy` empties the buckets, pictures, models and all their old versions included. With false it stops at a bucket that holds anything, and the key stays as long as a bucket does. Takes effect with the next apply, so apply it before destroying."
  type        = bool
  default     = false
  nullable    = false
}

variable "data_reader_account_ids" {
  description = "Other AWS accounts that may list and read the data bucket. Each then decides itself which of its roles may."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.data_reader_account_ids : can(regex("^[0-9]{12}$", id))])
    error_message = "Set data_reader_account_ids to account numbers of 12 digits, in quotes."
  }
}

variable "checkpoint_retention_days" {
  description = "Days after which a checkpoint is deleted. Must outlast the longest job with its interruptions: a spot job resumes from its last checkpoint."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.checkpoint_retention_days >= 1 && floor(var.checkpoint_retention_days) == var.checkpoint_retention_days
    error_message = "Set checkpoint_retention_days to a whole number of days, 1 or more."
  }
}

variable "request_retention_days" {
  description = "Days for which requests to the endpoint and their answers are kept, where data capture or asynchronous inference stores them. They are other people's pictures: long enough to look into a problem, no longer."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.request_retention_days >= 1 && floor(var.request_retention_days) == var.request_retention_days
    error_message = "Set request_retention_days to a whole number of days, 1 or more."
  }
}

variable "noncurrent_retention_days" {
  description = "Days for which an overwritten or deleted object can be brought back. Every old version is billed like a current one."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.noncurrent_retention_days >= 1 && floor(var.noncurrent_retention_days) == var.noncurrent_retention_days
    error_message = "Set noncurrent_retention_days to a whole number of days, 1 or more."
  }
}

variable "log_retention_days" {
  description = "Days for which the record of who read and wrote the buckets is kept."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = var.log_retention_days >= 1 && floor(var.log_retention_days) == var.log_retention_days
    error_message = "Set log_retention_days to a whole number of days, 1 or more."
  }
}

variable "kms_deletion_window_days" {
  description = "Days between `destroy` and the loss of the key, in which the deletion can be cancelled. Without the key nothing it encrypted can ever be read."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.kms_deletion_window_days >= 7 && var.kms_deletion_window_days <= 30
    error_message = "Set kms_deletion_window_days between 7 and 30, the range KMS allows."
  }
}
