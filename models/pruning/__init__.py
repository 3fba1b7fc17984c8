"""Pruning methods: one file and one row of `registry.METHODS` each."""
