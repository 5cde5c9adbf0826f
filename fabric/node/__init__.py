"""What a role is, what it may ask for, and the shells that do it."""
