"""How the fabric heals, and what clients notice of it: ``python -m bench.healing``."""
