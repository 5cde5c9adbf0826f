"""The fabric: replicated storage for container images, spoken to over the OCI registry API."""

__version__ = "0.1.0"
