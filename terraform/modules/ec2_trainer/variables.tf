variable "prefix" {
  description = "Stem of every name, such as dogbreed-dev."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.prefix))
    error_message = "Set prefix to 3 to 32 lower-case letters, digits and hyphens, starting with a letter."
  }
}

variable "tags" {
  description = "Tags on every resource, in addition to the provider's default tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts the volume, the log group, and what the host reads and writes in S3."
  type        = string
  nullable    = false
}

variable "permissions_boundary_arn" {
  description = "Policy that caps the host's role. Null caps nothing."
  type        = string
  default     = null
}

variable "network" {
  description = "Private network to run in, in one of its zones that has the instance type. Null is the account's default VPC, where the host has a public address (no port is open) and can reach torch_index_url."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}

variable "running" {
  description = "True makes a host, which trains once and then stops itself; a stopped host costs its volume only. It keeps the code that it started with: edits reach the next one, so set this to false and true again for another training. Changing another setting here replaces the host, also one that is training. False removes it; results and logs stay."
  type        = bool
  default     = false
  nullable    = false
}

variable "instance_type" {
  description = "Size of the host. A type with an NVIDIA GPU gets the Deep Learning image, any other plain Amazon Linux; a frozen backbone trains well on either."
  type        = string
  default     = "g5.xlarge"
  nullable    = false

  validation {
    condition     = !can(regex("^([a-z]+[0-9]+[a-z]*g[a-z]*|a1|p6e-gb[0-9]+)\\.", var.instance_type))
    error_message = "${var.instance_type} is an ARM (Graviton) type, and the wheels in the bundle are for x86_64: choose for example g5.xlarge instead of g5g.xlarge, or m6i.xlarge instead of m6g.xlarge."
  }
  validation {
    condition     = can(regex("^(a1|[a-z]+[0-9]+[a-z]*g[a-z]*|p6e-gb[0-9]+)\\.", var.instance_type)) || contains(local.gpu_families, split(".", var.instance_type)[0]) || can(regex(local.cpu_types, var.instance_type))
    error_message = "${var.instance_type} is neither a GPU type that the Deep Learning image supports (families ${join(", ", local.gpu_families)}) nor a CPU type of the families c, d, h, i, m, r, t, x or z: choose for example g5.xlarge or m6i.2xlarge."
  }
  validation {
    condition     = var.network == null || contains(local.gpu_families, split(".", var.instance_type)[0]) || var.ami_id != null
    error_message = "A CPU host installs PyTorch from torch_index_url, which a private network cannot reach: choose a GPU type, whose image carries PyTorch, set ami_id to an image with PyTorch in /opt/pytorch, or leave the network out."
  }
}

variable "spot" {
  description = "True runs on spare capacity, about 60 to 70 % cheaper: AWS may stop the host at any time, and starts it again when there is capacity; training goes on from its checkpoint."
  type        = bool
  default     = false
  nullable    = false
}

variable "volume_gb" {
  description = "Size of the host's disk in GB: image, pictures and features. Costs about 0.08 USD per GB and month, also while the host is stopped."
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.volume_gb >= 45 && var.volume_gb <= 16384 && floor(var.volume_gb) == var.volume_gb
    error_message = "Set volume_gb to a whole number from 45 (the Deep Learning image takes nearly that much) to 16384."
  }
}

variable "max_hours" {
  description = "Hours after which a started host is off whatever happens, set-up included: the upper bound of its price. What is done by then is kept, and starting the host again goes on."
  type        = number
  default     = 4
  nullable    = false

  validation {
    condition     = var.max_hours >= 1 && var.max_hours <= 168 && floor(var.max_hours) == var.max_hours
    error_message = "Set max_hours to a whole number of hours from 1 to 168 (a week)."
  }
}

variable "ami_id" {
  description = "Image to start from, pinned. Null takes the newest one when the host is made, which later ones do not replace. PyTorch is taken from its /opt/pytorch (of Python 3.12, as the bundle's wheels are for), else installed."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null || can(regex("^ami-([0-9a-f]{8}|[0-9a-f]{17})$", var.ami_id))
    error_message = "Set ami_id to the id of an image (ami- and 17 hexadecimal digits), or leave it out for the newest one."
  }
}

variable "ami_owners" {
  description = "Whose images ami_id may name: account ids, self, amazon or aws-marketplace."
  type        = set(string)
  default     = ["self", "amazon"]
  nullable    = false

  validation {
    condition     = length(var.ami_owners) > 0 && alltrue([for o in var.ami_owners : can(regex("^(self|amazon|aws-marketplace|[0-9]{12})$", o))])
    error_message = "Set ami_owners to at least one of: self, amazon, aws-marketplace, or the 12 digits of an account."
  }
}

variable "torch_index_url" {
  description = "Package index that a host whose image lacks PyTorch takes it from; all the rest comes from the bundle."
  type        = string
  default     = "https://download.pytorch.org/whl/cpu"
  nullable    = false

  validation {
    condition     = can(regex("^https://[A-Za-z0-9./_~%:@-]+$", var.torch_index_url))
    error_message = "Set torch_index_url to an https:// address: what it serves runs on the host."
  }
}

variable "bundle" {
  description = "Code and wheels to install (training.tar.gz), with the checksum that the host verifies."
  type = object({
    bucket = string
    key    = string
    uri    = string
    sha256 = string
  })
  nullable = false
}

variable "data_bucket" {
  description = "Bucket of the pictures."
  type        = object({ name = string, arn = string })
  nullable    = false
}

variable "artifacts_bucket" {
  description = "Bucket of the bundle, the checkpoints and the results."
  type        = object({ name = string, arn = string })
  nullable    = false
}

variable "data_url" {
  description = "What to train on, in the data bucket: a folder with train/, valid/ and test/, or one archive of it (faster: thousands of small files take longer). Null is the folder dogImages/."
  type        = string
  default     = null

  validation {
    condition     = var.data_url == null || can(regex("^s3://${var.data_bucket.name}/[^*?\\s]+$", var.data_url))
    error_message = "Set data_url to a folder or archive in the data bucket, such as s3://${var.data_bucket.name}/dogImages/: the host can read no other."
  }
}

variable "arguments" {
  description = "Settings of the training by name, as `dogbreed train --help` lists them: { solver = \"adamw\", epochs = \"30\" }."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.arguments) : can(regex("^[a-z][a-z0-9_-]*$", name))])
    error_message = "The keys of arguments are names of settings without dashes in front, such as learning-rate."
  }
  validation {
    condition     = !anytrue([for value in values(var.arguments) : can(regex("[[:cntrl:]]", value))])
    error_message = "The values of arguments are single lines of text."
  }
}

variable "log_retention_days" {
  description = "Days that the host's logs are kept; storage costs about 0.03 USD per GB and month."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "Set log_retention_days to a period that CloudWatch Logs offers, such as 30, 90 or 365."
  }
}
