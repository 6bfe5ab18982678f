"""The objective: labels from global alignment kernels, the structure loss, the generative loss."""
