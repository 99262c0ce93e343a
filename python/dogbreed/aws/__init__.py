"""What happens on AWS: packages, Terraform, and the local AWS that stands in for it."""
