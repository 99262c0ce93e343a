variable "prefix" {
  description = "Stem of the names of everything made here, and of the event rules that may write to the topic."
  type        = string
}

variable "tags" {
  description = "Tags of everything made here, beside the provider's default tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts the topic. Its policy must let CloudWatch, EventBridge and Budgets use it, or their messages are lost."
  type        = string
}

variable "endpoint" {
  description = "Endpoint to watch. Null without a model: there is nothing to alarm on."
  type = object({
    name         = string
    variant_name = optional(string, "AllTraffic")
    kind         = optional(string, "real-time")
  })
  default = null
}

variable "classify_function" {
  description = "Function to watch, by the alias that callers use. provisioned_concurrency = 0 leaves out the alarm on cold starts, and no timeout_s the one on calls that nearly take that long."
  type = object({
    name                    = string
    alias                   = string
    dead_letter_queue_name  = optional(string)
    provisioned_concurrency = optional(number)
    timeout_s               = optional(number)
    failures_metric         = optional(object({ namespace = string, name = string }))
  })
  default = null
}

variable "failed_job_rule_name" {
  description = "EventBridge rule that matches each failed job. The rule itself writes to the topic; here its metrics are watched. Null watches none."
  type        = string
  default     = null
}

variable "latency_p99_ms" {
  description = "Milliseconds that the model may take for all but the slowest hundredth of requests. More takes a roll-out back and sends a message; far below what callers wait for, far above a usual day."
  type        = number
  default     = 500
  nullable    = false

  validation {
    condition     = var.latency_p99_ms > 0 && var.latency_p99_ms <= 60000
    error_message = "Set latency_p99_ms to milliseconds between 1 and 60000, where SageMaker ends a request itself."
  }
}

variable "notify_emails" {
  description = "Addresses that the topic writes to. Each has to confirm by the link it is sent; until then it hears nothing."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for email in var.notify_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", email))])
    error_message = "Set notify_emails to e-mail addresses, such as team@example.com."
  }
}

variable "monthly_budget_usd" {
  description = "US dollars a month; a message comes at 80 % spent and when the forecast passes 100 %. Nothing is stopped. 0 makes no budget. The default leaves room for training beside what all the defaults cost at rest, about 210: one below that would warn every month."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.monthly_budget_usd >= 0
    error_message = "Set monthly_budget_usd to at least 0; 0 makes no budget."
  }
}

variable "budget_tag" {
  description = <<-EOT
    Count only what carries this tag. Null counts the whole account. First activate the tag as a cost allocation tag in the
    billing console and wait a day: a budget on a tag that is not active sees no cost and never warns.
  EOT
  type        = object({ key = string, value = string })
  default     = null
}
