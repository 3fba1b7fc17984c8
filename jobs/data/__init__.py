"""Images: sources, .beton files, FFCV and torch loaders."""
