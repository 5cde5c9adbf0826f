"""A deterministic simulator: whole clusters, real roles, one process, one seed."""
