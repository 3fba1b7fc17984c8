"""Pruning methods. Each is one file and one row of `registry.METHODS`."""
