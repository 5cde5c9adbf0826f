"""The proxy: stateless, between drivers and replicas."""
