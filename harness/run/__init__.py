"""What a job does with its stages and cells, and with what goes wrong."""
