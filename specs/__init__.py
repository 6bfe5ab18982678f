"""Corpora as YAML, one file a corpus, shipped as package data."""
