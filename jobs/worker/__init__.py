"""What a node does with a job: claim, train, measure, record, and respond to failures."""
