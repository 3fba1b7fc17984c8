"""Pure torch: networks, scans and pruning methods. No environment, no cluster, no files but a checkpoint to load."""
