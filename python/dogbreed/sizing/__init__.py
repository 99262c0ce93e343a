"""How much load one instance takes, the Terraform values that follow, and what scaling policies make of traffic."""
