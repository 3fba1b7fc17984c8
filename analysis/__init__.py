"""Reads records and writes leaderboards. No torch."""
