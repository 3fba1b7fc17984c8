"""Reads records, writes leaderboards. No torch."""
