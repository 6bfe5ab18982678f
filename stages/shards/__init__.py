"""Shards: documents as slices in reading order, as rows, as Arrow files."""
