"""A pull-through mirror: repositories whose content comes from another registry, and stays here."""
