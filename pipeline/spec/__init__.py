"""The spec: its sections, and how one is found, read and checked."""
