"""The registry: OCI Distribution and Docker v2 over HTTP, stored through the driver."""
