"""Frozen encoders: images and sentences into unit vectors, by the names a spec uses.

`registry` turns a name into an encoder, `embed` holds the row functions; one file for each family of towers.
"""
