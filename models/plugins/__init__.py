"""Plug-ins: files and installed packages that add rows to the tables of models, pruning methods and sources."""
