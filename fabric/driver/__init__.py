"""The driver: objects for programs, and the registry on top of them."""
