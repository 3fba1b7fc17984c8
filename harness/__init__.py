"""What the user types: launch, status, logs, cancel, reproduce; the grid, the plan, the records, the runner."""
