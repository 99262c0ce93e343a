"""Train, tune, deploy and serve an image classifier of dog breeds."""

__version__ = "0.1.0"
