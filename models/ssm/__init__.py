"""State-space layers and the scans under them."""
