"""The policy for failures, smaller micro-batches, and nodes to avoid."""
