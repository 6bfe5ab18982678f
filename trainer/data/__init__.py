"""From Arrow shards to packed tensors: read, lay out as tokens, plan the epoch, collate a step."""
