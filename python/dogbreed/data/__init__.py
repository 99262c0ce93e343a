"""Pictures and their labels: getting them, checking them, splitting them, reading them."""
