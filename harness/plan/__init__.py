"""What a launch will run: the forest of stages that cells share, jobs, and what would fail."""
