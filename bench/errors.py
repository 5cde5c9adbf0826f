"""What ends a benchmark."""


class BenchError(Exception):
    """Something that was to be measured, or measured with, does not work; the message says what."""
