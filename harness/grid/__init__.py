"""What a grid.yaml says: its cells, each with the line that it comes from."""
