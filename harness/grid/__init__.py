"""The content of a grid.yaml and of a profile, each value with its line for error messages."""
