"""The chunk engine measured alone: ``python -m bench.engine``."""
