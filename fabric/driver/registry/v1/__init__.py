"""The registry's first protocol, as clients up to Docker 1.5 speak it."""
