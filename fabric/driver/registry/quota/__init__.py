"""Quotas: how many bytes the repositories below a prefix may hold, counted exactly."""
