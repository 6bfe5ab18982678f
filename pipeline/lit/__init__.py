"""Training of the heads that are the default shared encoder."""
