"""The build graph: which stage sees which rows, in which order.

One file a group of phases; `graph` puts them together.
"""
