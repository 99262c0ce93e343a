"""Train, tune and use an image classifier of dog breeds."""

__version__ = "0.1.0"
