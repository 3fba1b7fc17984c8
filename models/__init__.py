"""Pure torch: networks, scans, pruning methods. No files, no environment, no cluster."""
