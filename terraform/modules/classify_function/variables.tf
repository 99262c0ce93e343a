variable "prefix" {
  description = "Start of every name here."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.prefix)) && length(var.prefix) <= 48
    error_message = "Set prefix to at most 48 lower-case letters, digits and single hyphens: the function's name starts with it."
  }
}

variable "tags" {
  description = "Tags of everything made here, beside the provider's default tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts the function's environment, its logs and the queue of failed events."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "Policy that caps the role made here. Null caps nothing."
  type        = string
  default     = null
}

variable "network" {
  description = "Puts the function inside a VPC: it then reaches no public picture without a NAT gateway, so this is for callers that send bytes. Null leaves it outside, which gives nobody a way in."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}

variable "package_path" {
  description = "Archive with the function's code (lambda.zip)."
  type        = string

  validation {
    condition     = try(fileexists(var.package_path), false)
    error_message = "There is no ${var.package_path}. Run make package."
  }
}

variable "endpoint_name" {
  description = "SageMaker endpoint that classifies. It need not exist yet: until then the function answers 503."
  type        = string
}

variable "endpoint_arn" {
  description = "ARN of that endpoint, the only one that the function may invoke."
  type        = string

  validation {
    condition     = endswith(lower(var.endpoint_arn), ":endpoint/${lower(var.endpoint_name)}")
    error_message = "Set endpoint_arn to the ARN of the endpoint that endpoint_name names (arn:…:endpoint/${var.endpoint_name})."
  }
}

variable "memory_mb" {
  description = "Memory in MB, which also buys CPU (1769 MB is one core). A call needs about 60 MB and mostly waits; more shortens the cold start."
  type        = number
  default     = 256
  nullable    = false

  validation {
    condition     = var.memory_mb >= 128 && var.memory_mb <= 10240 && floor(var.memory_mb) == var.memory_mb
    error_message = "Set memory_mb to a whole number from 128 to 10240."
  }
}

variable "timeout_s" {
  description = "Seconds after which a call is cut off, fetching and two attempts at the endpoint together. API Gateway gives up after 29; a serverless endpoint that starts from zero wants 60."
  type        = number
  default     = 29
  nullable    = false

  validation {
    condition     = var.timeout_s >= var.fetch_timeout_s + 10 && var.timeout_s <= 900 && floor(var.timeout_s) == var.timeout_s
    error_message = "Set timeout_s to a whole number from fetch_timeout_s + 10 (so that each attempt at the endpoint has 2 s or more) to 900."
  }
}

variable "fetch_timeout_s" {
  description = "Seconds that fetching a picture may take in all. What is left of timeout_s is for the endpoint."
  type        = number
  default     = 8
  nullable    = false

  validation {
    condition     = var.fetch_timeout_s >= 1
    error_message = "Set fetch_timeout_s to at least 1."
  }
}

variable "picture_max_mib" {
  description = "Largest picture in MiB. Endpoints take 6 MB in one request, serverless ones 4 MB: set 3 for those."
  type        = number
  default     = 5
  nullable    = false

  validation {
    condition     = contains([1, 2, 3, 4, 5], var.picture_max_mib)
    error_message = "Set picture_max_mib to 1, 2, 3, 4 or 5: an endpoint refuses requests over 6 MB."
  }
}

variable "payload_max_mb" {
  description = "What the endpoint takes in one request, in MB: 6, or 4 if it is serverless. A picture with wishes (details, more classes) goes there as base64, a third larger."
  type        = number
  default     = 6
  nullable    = false

  validation {
    condition     = contains([4, 6], var.payload_max_mb)
    error_message = "Set payload_max_mb to 6, or to 4 for a serverless endpoint."
  }
}

variable "fetch_exempt_hosts" {
  description = "host:port pairs, matched to the letter, that pictures are fetched from although their address is not public. For local AWS and trials; each is a way for callers to reach that address."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for host in var.fetch_exempt_hosts : can(regex("^[A-Za-z0-9.-]+:[0-9]{1,5}$", host))])
    error_message = "Set fetch_exempt_hosts to host:port pairs without wildcards, such as 127.0.0.1:8000."
  }
}

variable "provisioned_concurrency" {
  description = "Environments that are always started, so that no caller waits for a cold start (about half a second). Needed = requests per second × seconds per request. Each costs about 2 USD a month at 256 MB. 0 starts them on demand."
  type        = number
  default     = 3
  nullable    = false

  validation {
    condition     = var.provisioned_concurrency >= 0 && floor(var.provisioned_concurrency) == var.provisioned_concurrency
    error_message = "Set provisioned_concurrency to a whole number, or to 0 for none."
  }
}

variable "provisioned_concurrency_max" {
  description = "Lets provisioned concurrency grow to this number when 70 % of it is in use, and shrink to provisioned_concurrency again. Null keeps it constant. Switching to or from null leaves a minute or two without any."
  type        = number
  default     = null

  validation {
    condition = var.provisioned_concurrency_max == null ? true : (
      var.provisioned_concurrency >= 1 && var.provisioned_concurrency_max >= var.provisioned_concurrency && floor(var.provisioned_concurrency_max) == var.provisioned_concurrency_max
    )
    error_message = "Set provisioned_concurrency to at least 1 and provisioned_concurrency_max to a whole number no smaller, or leave provisioned_concurrency_max null."
  }
}

variable "reserved_concurrency" {
  description = "Most calls at once: caps the bill and what reaches the endpoint; more are answered 429. It is taken from the account's quota, of which 100 must stay unreserved: new accounts with a quota of 10 can reserve none, so set -1 (no cap) and provisioned_concurrency 0 there, or have the quota \"Concurrent executions\" raised."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition = var.reserved_concurrency == -1 || (
      var.reserved_concurrency >= max(1, var.provisioned_concurrency, coalesce(var.provisioned_concurrency_max, 0)) && floor(var.reserved_concurrency) == var.reserved_concurrency
    )
    error_message = "Set reserved_concurrency to at least provisioned_concurrency and provisioned_concurrency_max, or to -1 for no cap."
  }
}

variable "url_auth" {
  description = "Who may call the function's URL. AWS_IAM: signed requests of principals that are allowed lambda:InvokeFunctionUrl and lambda:InvokeFunction. NONE: anyone on the internet, at your cost, up to reserved_concurrency at once, who thereby reaches the model and can make the function fetch any public address; applied with an administrator's credentials, because bootstrap's role for CI lacks the rights that it takes (Cloud Control) on purpose. OFF: there is no URL."
  type        = string
  default     = "AWS_IAM"
  nullable    = false

  validation {
    condition     = contains(["AWS_IAM", "NONE", "OFF"], var.url_auth)
    error_message = "Set url_auth to AWS_IAM, NONE or OFF."
  }
}

variable "page" {
  description = "Whether GET requests for / are answered with the page, on which pictures can be dropped. Null: where there is a function URL. Whoever may call the URL may see it, and browsers sign no requests: with url_auth AWS_IAM it takes something in front that signs. true is for an API Gateway or a load balancer of your own; false leaves POST alone."
  type        = bool
  default     = null
}

variable "log_retention_days" {
  description = "Days that logs are kept, one of the values CloudWatch knows."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "Set log_retention_days to a value that CloudWatch knows: 30, 90, 365, 731, …"
  }
}
