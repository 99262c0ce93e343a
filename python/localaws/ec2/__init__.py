"""EC2."""

from localaws.ec2 import instances, launch_templates, network

__all__ = ["instances", "launch_templates", "network"]
