variable "prefix" {
  description = "Stem of the names of everything made here."
  type        = string
}

variable "tags" {
  description = "Tags of everything made here, beside the provider's default tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "kms_key_arn" {
  description = "Key that encrypts volumes, logs, captured requests and asynchronous answers."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "Policy that caps the role made here. Null caps nothing."
  type        = string
  default     = null
}

variable "network" {
  description = "Where instances run. Null, and always with kind = \"serverless\": in a network of AWS's own. Either way the model itself has no network on instances, unless model.network_isolation is false."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
  default = null
}

variable "name" {
  description = "Name of the endpoint; also without a model, because callers are told of it before it exists."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9]+(-+[a-zA-Z0-9]+)*$", var.name)) && length(var.name) <= 36
    error_message = "Set name to at most 36 letters, digits and hyphens: configurations add 26 characters to it and may have 63."
  }
}

variable "artifacts_bucket" {
  description = "Bucket of models/, and of capture/ and async/ where these are used."
  type        = object({ name = string, arn = string })
}

variable "model" {
  description = <<-EOT
    What is served; null serves nothing, and there is no endpoint. Another model is rolled out to the running endpoint.
    data_url: archive in the artifacts bucket. Give each model an archive of its own: instances that start later read it
      again, so overwriting one makes the fleet answer with two models.
    image: container in ECR, with a digest or a tag that stays. Null takes serving_image, our own of the present sources:
      when they change, the next apply rolls out their image, which has to be built first. A name here stays as it is.
      "aws" takes AWS's PyTorch container for CPUs, which gets no more patches and lacks packages that the model needs.
    environment: variables for the container.
    network_isolation: the container can reach nothing at all. Without, it installs packages and fetches pictures by URL, if
      network is null; a serverless endpoint is never isolated.
  EOT
  type = object({
    data_url          = string
    image             = optional(string)
    environment       = optional(map(string), {})
    network_isolation = optional(bool, true)
  })
  default = null

  validation {
    condition = (var.model == null ? true :
      startswith(var.model.data_url, "s3://${var.artifacts_bucket.name}/models/") && can(regex("^[^*?\\s]+[^/]\\.tar\\.gz$", var.model.data_url))
    )
    error_message = "The model has to be s3://${var.artifacts_bucket.name}/models/….tar.gz, which is all that the endpoint's role may read. Copy the archive there and set model.data_url to the copy."
  }
  validation {
    condition = (try(var.model.image, null) == null || try(var.model.image, null) == "aws" ? true :
      can(regex(local.image_pattern, var.model.image)) && !endswith(var.model.image, ":latest")
    )
    error_message = "Set model.image to an image in ECR with a digest or a tag that stays (<account>.dkr.ecr.<region>.amazonaws.com/<repository>@sha256:… or :<tag>, not :latest): instances that start later pull it again. Or leave it out for our own image, or set it to \"aws\"."
  }
  validation {
    condition     = try(regex(local.image_pattern, var.model.image)[1], local.region) == local.region
    error_message = "SageMaker pulls images only from the endpoint's own region, ${local.region}, and model.image lies in ${try(regex(local.image_pattern, var.model.image)[1], "another")}. Push it to a repository in ${local.region} and name that one."
  }
  validation {
    condition = anytrue([
      try(var.model.image, null) != "aws" && try(regex(local.image_pattern, var.model.image)[2], "") != "pytorch-inference",
      var.kind == "serverless",
      try(!var.model.network_isolation, true) && var.network == null,
    ])
    error_message = "AWS's container lacks packages that the model needs (openvino and others) and installs them from code/requirements.txt when it starts, for which it needs the internet. Leave model.image out for our own image, or set model.network_isolation = false and network to null (in the root: network = { enabled = false })."
  }
}

variable "serving_image" {
  description = "Our own image of the present sources, for models that name none: its URI, and the repository and tag to find it by."
  type        = object({ uri = string, repository = string, tag = string })
}

variable "check_image" {
  description = "Whether a plan looks into ECR for serving_image. False where none is pulled: the local AWS runs the server as a process."
  type        = bool
  default     = true
  nullable    = false
}

variable "kind" {
  description = <<-EOT
    real-time: instances that always run; answers in milliseconds.
    serverless: no instances and no cost while idle, but seconds for the first request after a pause; no GPU, no private
      network, no captured requests, no roll-back by alarms.
    async: requests and answers lie in S3 (async/); up to 1 GB and an hour each, and no instance while there is no work.
    Changing it replaces the endpoint, which is an outage of some minutes.
  EOT
  type        = string
  default     = "real-time"
  nullable    = false

  validation {
    condition     = contains(["real-time", "serverless", "async"], var.kind)
    error_message = "There is no kind \"${var.kind}\" of endpoint. Set kind to real-time, serverless or async."
  }
}

variable "instance_type" {
  description = "Size of one instance; not for serverless. Changing it rolls out a new fleet without an outage."
  type        = string
  default     = "ml.m5.large"
  nullable    = false

  validation {
    condition     = can(regex("^ml\\.[a-z0-9-]+\\.[a-z0-9]+$", var.instance_type))
    error_message = "Set instance_type to a type of SageMaker instance, such as ml.m5.large or ml.g5.xlarge."
  }
  validation {
    condition     = var.model == null || !(local.ours || local.aws_container) || can(regex("^ml\\.(t2|[cmr][0-9]+(i|d|id|in)?)\\.", var.instance_type))
    error_message = "${var.instance_type} has a GPU or an ARM processor, which ${local.ours ? "our image" : "AWS's CPU container"} cannot use. Set model.image to a container made for it, or instance_type to a family such as ml.m5, ml.c5 or ml.c6i."
  }
}

variable "min_instances" {
  description = "Fewest instances. Two or more survive the loss of a zone and let a canary look first; 0 only with kind = \"async\"."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = floor(var.min_instances) == var.min_instances && var.min_instances >= 0
    error_message = "Set min_instances to a whole number."
  }
  validation {
    condition     = var.min_instances > 0 || var.kind == "async"
    error_message = "Only an async endpoint can do without instances. Set min_instances to at least 1, or kind to async (requests through S3) or serverless."
  }
}

variable "max_instances" {
  description = "Most instances: the limit of what load can cost. Equal to min_instances turns auto-scaling off."
  type        = number
  default     = 3
  nullable    = false

  validation {
    condition     = floor(var.max_instances) == var.max_instances && var.max_instances >= 1
    error_message = "Set max_instances to a whole number of at least 1."
  }
  validation {
    condition     = var.max_instances >= var.min_instances
    error_message = "max_instances (${var.max_instances}) is less than min_instances (${var.min_instances}). Set max_instances to at least min_instances."
  }
}

variable "invocations_per_instance" {
  description = <<-EOT
    Load at which instances are added: invocations per MINUTE and instance, not requests at the same time.
    Take the most requests per second that one instance sustains × 60 × 0.5; the half is for what arrives during the minutes
    that a new instance takes. The default fits 10 requests per second and instance.
  EOT
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.invocations_per_instance > 0
    error_message = "Set invocations_per_instance to more than 0: the most requests per second of one instance × 60 × 0.5."
  }
}

variable "scale_in_cooldown_s" {
  description = "Seconds after instances were taken away (a scale-in) before more may be taken away. Long: capacity stays through short lulls. Short: it is gone when the next wave comes."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.scale_in_cooldown_s >= 0 && var.scale_in_cooldown_s <= 3600
    error_message = "Set scale_in_cooldown_s to between 0 and 3600 seconds; 300 is a good start."
  }
}

variable "scale_out_cooldown_s" {
  description = "Seconds after instances were added (a scale-out) before more may be added. A new instance serves after about 4 minutes, and two more pass until the metric shows it; with less than that the same load adds instances twice (`dogbreed simulate-scaling` plays it)."
  type        = number
  default     = 360
  nullable    = false

  validation {
    condition     = var.scale_out_cooldown_s >= 0 && var.scale_out_cooldown_s <= 3600
    error_message = "Set scale_out_cooldown_s to between 0 and 3600 seconds; 360 is a good start, since it takes about that long until a new instance counts."
  }
}

variable "schedules" {
  description = <<-EOT
    Changes of min_instances and max_instances at known times, by name, such as
      evening = { schedule = "cron(0 20 * * ? *)", timezone = "Europe/Berlin", min_instances = 1, max_instances = 1 }
    From the first that fires on the schedules decide; min_instances and max_instances above only hold until then.
  EOT
  type = map(object({
    schedule      = string
    timezone      = optional(string, "UTC")
    min_instances = number
    max_instances = number
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for s in var.schedules : can(regex("^(cron|rate|at)\\(.+\\)$", s.schedule))])
    error_message = "Write each schedule as cron(minute hour day month weekday year), rate(…) or at(yyyy-mm-ddThh:mm:ss)."
  }
  validation {
    condition     = alltrue([for s in var.schedules : s.min_instances <= s.max_instances])
    error_message = "A schedule has more min_instances than max_instances. Raise its max_instances."
  }
  validation {
    condition     = alltrue([for s in var.schedules : s.min_instances >= (var.kind == "async" ? 0 : 1) && s.max_instances >= 1])
    error_message = "Set min_instances and max_instances of each schedule to at least 1 (min_instances to at least 0 with kind = \"async\")."
  }
  validation {
    condition     = length(var.schedules) == 0 || var.kind != "serverless"
    error_message = "A serverless endpoint has no instances to schedule. Remove schedules, or set kind to real-time."
  }
}

variable "roll_out" {
  description = <<-EOT
    How a new model takes over from the old one, whose instances stay until the end. When a rollback alarm rings on the way, all
    requests go back to the old model and `apply` fails; nothing is lost but the update.
    strategy: all_at_once, canary (a part first, then the rest) or linear (part by part).
    size_percent: the part, in percent of the new fleet's instances.
    wait_s: how long each part is watched before the next.
    termination_wait_s: how long all of it is watched before the old instances end.
    timeout_s: SageMaker gives up and rolls back after this; instances alone take about 10 minutes.
    instances: how many the new fleet starts with, min_instances if null. It does not take over how many run now, and
      auto-scaling rests during the update: at a busy hour set it to what runs then. The account's quota has to cover
      both fleets.
    Serverless endpoints know none of this and switch at once.
  EOT
  type = object({
    strategy           = optional(string, "all_at_once")
    size_percent       = optional(number, 50)
    wait_s             = optional(number, 300)
    termination_wait_s = optional(number, 300)
    timeout_s          = optional(number, 3000)
    instances          = optional(number)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["all_at_once", "canary", "linear"], var.roll_out.strategy)
    error_message = "There is no roll-out \"${var.roll_out.strategy}\". Set roll_out.strategy to all_at_once, canary or linear."
  }
  validation {
    condition     = var.roll_out.strategy == "all_at_once" || var.kind != "serverless"
    error_message = "A serverless endpoint switches to a new model at once. Set roll_out.strategy to all_at_once, or kind to real-time."
  }
  validation {
    condition     = var.roll_out.instances == null ? true : floor(var.roll_out.instances) == var.roll_out.instances && var.roll_out.instances >= max(1, var.min_instances) && var.roll_out.instances <= var.max_instances
    error_message = "Set roll_out.instances to a whole number from ${max(1, var.min_instances)} (min_instances) to ${var.max_instances} (max_instances)."
  }
  validation {
    condition     = var.roll_out.size_percent > 0 && var.roll_out.size_percent <= 50
    error_message = "Set roll_out.size_percent to at most 50: SageMaker takes no larger part of a fleet as a step."
  }
  validation {
    condition     = var.roll_out.strategy != "linear" || var.roll_out.size_percent >= 10
    error_message = "Set roll_out.size_percent to at least 10: SageMaker takes no smaller steps with roll_out.strategy = \"linear\"."
  }
  validation {
    condition     = var.roll_out.strategy == "all_at_once" || max(1, coalesce(var.roll_out.instances, var.min_instances)) * var.roll_out.size_percent >= 100
    error_message = "${var.roll_out.size_percent} % of ${max(1, coalesce(var.roll_out.instances, var.min_instances))} instance(s) is less than one, and a part of a fleet is whole instances, at most half of them. Set min_instances or roll_out.instances to at least ${ceil(100 / max(1, var.roll_out.size_percent))}, or roll_out.strategy to all_at_once."
  }
  validation {
    condition     = alltrue([for s in [var.roll_out.wait_s, var.roll_out.termination_wait_s] : s >= 0 && s <= 3600])
    error_message = "Set roll_out.wait_s and roll_out.termination_wait_s to between 0 and 3600 seconds."
  }
  validation {
    condition     = var.roll_out.timeout_s >= 600 && var.roll_out.timeout_s <= 3600
    error_message = "Set roll_out.timeout_s to between 600 and 3600 seconds: Terraform waits an hour for an endpoint."
  }
  validation {
    condition = (
      lookup({ canary = 1, linear = ceil(100 / max(1, var.roll_out.size_percent)) - 1 }, var.roll_out.strategy, 0) * var.roll_out.wait_s
      + var.roll_out.termination_wait_s + 600 <= var.roll_out.timeout_s
    )
    error_message = "All waits of this roll-out, and 600 s for the instances to start, take longer than timeout_s (${var.roll_out.timeout_s}): every update would be rolled back. Shorten roll_out.wait_s or termination_wait_s, or raise timeout_s or size_percent."
  }
}

variable "rollback_alarm_names" {
  description = "CloudWatch alarms that take an update back. Name them when the endpoint is made: to add the first or remove the last one later replaces the endpoint, which is an outage."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.rollback_alarm_names) <= 10
    error_message = "SageMaker watches at most 10 alarms. Shorten rollback_alarm_names."
  }
  validation {
    condition     = var.roll_out.strategy == "all_at_once" || length(var.rollback_alarm_names) > 0
    error_message = "Nobody would watch the ${var.roll_out.strategy} part: name at least one alarm in rollback_alarm_names, or set roll_out.strategy to all_at_once."
  }
}

variable "data_capture_percent" {
  description = "Percent of requests kept with their answers in capture/, for looking into what comes in. They are people's pictures: mind who may read them. Real-time only."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = floor(var.data_capture_percent) == var.data_capture_percent && var.data_capture_percent >= 0 && var.data_capture_percent <= 100
    error_message = "Set data_capture_percent to a whole number from 0 (off) to 100."
  }
  validation {
    condition     = var.data_capture_percent == 0 || var.kind == "real-time"
    error_message = "Requests can only be captured with kind = \"real-time\" (those of an async endpoint lie in S3 anyway). Set data_capture_percent to 0, or kind to real-time."
  }
}

variable "serverless" {
  description = <<-EOT
    With kind = "serverless":
    memory_mb: memory of one worker, 1024 to 6144 in steps of 1024; its share of processors grows with it.
    max_concurrency: most requests at a time; more are refused. needed = requests per second × seconds per request.
    provisioned_concurrency: workers kept warm, paid by the hour. Null keeps none.
  EOT
  type = object({
    memory_mb               = optional(number, 4096)
    max_concurrency         = optional(number, 5)
    provisioned_concurrency = optional(number)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains([1024, 2048, 3072, 4096, 5120, 6144], var.serverless.memory_mb)
    error_message = "Set serverless.memory_mb to 1024, 2048, 3072, 4096, 5120 or 6144."
  }
  validation {
    condition     = var.serverless.max_concurrency >= 1 && var.serverless.max_concurrency <= 200
    error_message = "Set serverless.max_concurrency to between 1 and 200."
  }
  validation {
    condition     = var.serverless.provisioned_concurrency == null ? true : var.serverless.provisioned_concurrency >= 1 && var.serverless.provisioned_concurrency <= var.serverless.max_concurrency
    error_message = "Set serverless.provisioned_concurrency to between 1 and max_concurrency (${var.serverless.max_concurrency}), or leave it out."
  }
}

variable "async" {
  description = <<-EOT
    With kind = "async":
    concurrency_per_instance: requests that one instance works on at a time. Null lets SageMaker choose.
    backlog_per_instance: waiting requests per instance at which instances are added.
    success_topic_arn, error_topic_arn: SNS topics told of each answer and each failure. Null tells nobody.
  EOT
  type = object({
    concurrency_per_instance = optional(number)
    backlog_per_instance     = optional(number, 5)
    success_topic_arn        = optional(string)
    error_topic_arn          = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.async.concurrency_per_instance == null ? true : var.async.concurrency_per_instance >= 1 && var.async.concurrency_per_instance <= 1000
    error_message = "Set async.concurrency_per_instance to between 1 and 1000, or leave it out."
  }
  validation {
    condition     = var.async.backlog_per_instance > 0
    error_message = "Set async.backlog_per_instance to more than 0: how many requests may wait for each instance."
  }
}

variable "log_retention_days" {
  description = "Days that the container's logs are kept, one of the values CloudWatch knows."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "Set log_retention_days to a value that CloudWatch knows: 30, 90, 365, 731, …"
  }
}
