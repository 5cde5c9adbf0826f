"""How fast is the fabric on this machine, and how near to what the machine can do?

``python -m bench`` starts a fabric of its own, measures it beside the limits of disk, wire and HTTP
that it measures in the same minutes, and removes everything again.  One question a file.
"""
