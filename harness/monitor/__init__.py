"""The state of a run: its cells, its jobs, its failures, from files and one question to the scheduler."""
