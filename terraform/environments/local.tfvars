# Local AWS: one machine, no account, no cost. No network of its own, because nothing here would be cut off by it.
environment = "local"
data        = { delete_on_destroy = true }
network     = { enabled = false }
check_image = false # the endpoint is a process on this machine, and no image is pulled
