"""The demo: a corpus from real sites served on this machine, and a training on it."""
