"""Images: sources, prepared .beton files, and the loaders that read them, by FFCV or by torch."""
