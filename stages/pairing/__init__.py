"""Pairing: which sentence an image is matched to."""
