"""Training runs as YAML, shipped as package data and found by name by `trainer.run --config`."""
