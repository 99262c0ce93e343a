# The defaults: a private network, one instance behind the endpoint, a notebook that stops by itself.
environment = "dev"
