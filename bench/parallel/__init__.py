"""One large blob through one connection, and through several."""
