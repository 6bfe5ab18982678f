"""The interleaved model: vision tower, connector, any causal language model, retrieval head."""
