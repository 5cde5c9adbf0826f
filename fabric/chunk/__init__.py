"""The chunk server: fragments in append-only data files with an index."""
