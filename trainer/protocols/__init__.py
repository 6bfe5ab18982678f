"""Evaluation: a file a protocol, and the records and figures they share."""
