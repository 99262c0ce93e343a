variable "prefix" {
  description = "Stem of every name, such as dogbreed-dev."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,39}[a-z0-9]$", var.prefix))
    error_message = "Set prefix to 3 to 41 lower-case letters, digits and hyphens, starting with a letter."
  }
}

variable "tags" {
  description = "Tags on every resource, beside the provider's default tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts the flow logs; its policy must admit CloudWatch Logs."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "Policy that caps the role made here. Null caps nothing."
  type        = string
  default     = null
}

variable "cidr" {
  description = "Addresses of the network, /16 to /24. A quarter goes to each zone; every interface endpoint takes one address there, every instance of a job one or two. Must not overlap networks it may once be peered with."
  type        = string
  default     = "10.20.0.0/16"
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.cidr)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 24, false)
    error_message = "Set cidr to an IPv4 range between /16 and /24, such as 10.20.0.0/16."
  }
  validation {
    condition     = try(cidrsubnet(var.cidr, 0, 0) == var.cidr, true)
    error_message = "Set cidr to where its range begins: ${try(cidrsubnet(var.cidr, 0, 0), "")}."
  }
  validation {
    condition     = !can(cidrnetmask(var.cidr)) || can(regex("^(10|172\\.(16|18|19|2[0-9]|3[01])|192\\.168)\\.", var.cidr))
    error_message = "Set cidr within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16: other addresses belong to somebody. 172.17.0.0/16 is taken by Docker inside SageMaker's and EC2's hosts."
  }
}

variable "zones" {
  description = "Availability zones, 2 or 3. Each more is another chance to find free GPU instances and one more to survive, and costs every interface endpoint once more."
  type        = number
  default     = 2
  nullable    = false

  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "Set zones to 2 or 3."
  }
}

variable "bucket_arns" {
  description = "Buckets that can be reached from the network, by roles of this account. Every other bucket is out of reach, whatever a role may do."
  type        = set(string)

  validation {
    condition     = length(var.bucket_arns) > 0 && alltrue([for arn in var.bucket_arns : can(regex("^arn:[a-z-]+:s3:::[a-z0-9.-]+$", arn))])
    error_message = "Set bucket_arns to the ARNs of buckets (arn:aws:s3:::<name>), at least one."
  }
}

variable "interface_services" {
  description = <<-EOT
    AWS services that can be reached from the network, at about 7.30 USD each per month and zone (0.01 USD an hour in
    us-east-1) and 0.01 USD per GB.
    sagemaker.api: start and follow jobs from the notebook, and stop it when idle.
    sagemaker.runtime: ask the endpoint, from the notebook and from the function when that is inside.
    sagemaker.featurestore-runtime: read and write embeddings.
    ecr.api: find the image's digest before a job starts.
    logs: the training host writes, the notebook reads.
    ssm, ssmmessages: sessions on the training host, which has no open port; names of the deployment.
    sts: who am I, asked by every SDK.
    Not called, so not among the defaults: ecr.dkr (SageMaker pulls images outside this network unless a job says
    otherwise), kms (S3 and EBS call it themselves, and the key refuses direct calls), ec2messages (SSM agents before
    3.3), monitoring, ec2.
  EOT
  type        = set(string)
  default = [
    "ecr.api",
    "logs",
    "sagemaker.api",
    "sagemaker.featurestore-runtime",
    "sagemaker.runtime",
    "ssm",
    "ssmmessages",
    "sts",
  ]
  nullable = false

  validation {
    condition     = length(setsubtract(var.interface_services, keys(local.service_actions))) == 0
    error_message = "Choose interface_services among ${join(", ", keys(local.service_actions))}; for another one, add what it is needed for to endpoints.tf."
  }
}

variable "flow_log_retention_days" {
  description = "Days for which the record of every connection is kept; 0.50 USD per GB to write, 0.03 USD per GB and month to keep."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.flow_log_retention_days)
    error_message = "Set flow_log_retention_days to one of CloudWatch's periods: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}
