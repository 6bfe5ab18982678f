"""A training: preparation, steps, optimizer, checkpoints, logs, and what a run leaves behind."""
