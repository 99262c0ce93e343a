variable "prefix" {
  description = "Start of every name here."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*(-[a-z0-9]+)*$", var.prefix)) && length(var.prefix) <= 28
    error_message = "Set prefix to at most 28 lower-case letters, digits and single hyphens, starting with a letter."
  }
}

variable "tags" {
  description = "Tags of everything made here, beside the provider's default tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts the volume and the bundle."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "Policy that caps the role made here. Null caps nothing."
  type        = string
  default     = null
}

variable "network" {
  description = "Private network of the notebook. Null puts an instance on the internet, which is handy for `pip install` and lets data out as easily; Studio needs a network."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}

variable "kind" {
  description = "instance: one Jupyter server that several people can share. studio: a Studio domain with a user profile; each start takes minutes longer and its home directory is a file system of its own. What people made in Studio (apps, spaces) is not Terraform's and stops its `destroy` until they delete it, under Domain > Space management; so do the two security groups security-group-for-inbound-nfs-* and -outbound-nfs-* that SageMaker leaves in the network: delete their rules, then the groups."
  type        = string
  default     = "instance"
  nullable    = false

  validation {
    condition     = contains(["instance", "studio"], var.kind)
    error_message = "Set kind to \"instance\" or \"studio\"."
  }

  validation {
    condition     = var.kind != "studio" || var.network != null
    error_message = "A Studio domain lives in a network: set network, or kind = \"instance\"."
  }
}

variable "instance_type" {
  description = "Machine of the notebook. ml.t3.medium (0.05 USD an hour) is enough to start jobs and look at results; jobs have machines of their own."
  type        = string
  default     = "ml.t3.medium"
  nullable    = false

  validation {
    condition     = can(regex("^ml\\.[a-z0-9-]+\\.[a-z0-9]+$", var.instance_type))
    error_message = "Set instance_type to a SageMaker type, such as ml.t3.medium."
  }
}

variable "volume_gb" {
  description = "Disk for what is kept between sessions, in GB, from 5 to 16384. It is paid for while the notebook is stopped too."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.volume_gb >= 5 && var.volume_gb <= 16384 && floor(var.volume_gb) == var.volume_gb
    error_message = "Set volume_gb to a whole number from 5 to 16384."
  }
}

variable "idle_minutes" {
  description = "The notebook stops after this many minutes without a running cell or a word in a terminal. An open browser tab does not keep it up. From 10, in Studio from 60."
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.idle_minutes >= (var.kind == "studio" ? 60 : 10) && var.idle_minutes <= 525600 && floor(var.idle_minutes) == var.idle_minutes
    error_message = "Set idle_minutes to a whole number from 10 (in Studio from 60) to 525600."
  }
}

variable "bundle_path" {
  description = "Archive with the package, all the wheels it needs, and ipykernel: notebook.tar.gz (Python 3.10) on an instance, studio.tar.gz (Python 3.12, which SageMaker Distribution 3 has) in Studio."
  type        = string

  validation {
    condition     = fileexists(var.bundle_path)
    error_message = "There is no ${var.bundle_path}. Run make package."
  }
}

variable "artifacts_bucket" {
  description = "Bucket whose code/ the bundle is put in. Needs versioning."
  type        = object({ name = string, arn = string })
}

variable "job_launcher_policy_arn" {
  description = "Policy with what starting jobs needs, from the training module."
  type        = string
}

variable "endpoint_arn" {
  description = "The one endpoint that people in the notebook may ask. It need not exist yet."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:sagemaker:[a-z0-9-]+:[0-9]{12}:endpoint/[^*?]+$", var.endpoint_arn))
    error_message = "Set endpoint_arn to the ARN of an endpoint (arn:aws:sagemaker:<region>:<account>:endpoint/<name>), without wildcards."
  }
}
