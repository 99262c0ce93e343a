# Two instances at least, so that a canary can take the first look at a new model.
environment = "prod"
endpoint = {
  min_instances = 2
  max_instances = 4
  roll_out      = { strategy = "canary" }
}
classify_function = { provisioned_concurrency = 5 }
