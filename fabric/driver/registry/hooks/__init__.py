"""Webhooks: receivers are told of pushes, pulls and deletions."""
