"""What is done about a failure: its policy, smaller micro-batches, nodes to avoid."""
