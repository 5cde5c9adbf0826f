"""The fabric side by side with what people use: SeaweedFS, Debian's docker-registry, and the bare machine."""
