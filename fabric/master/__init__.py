"""The master: who is in the cluster, which groups take writes, and what every path names."""
