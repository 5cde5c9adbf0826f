"""The language of the fabric: what roles say to one another, and its bytes."""
