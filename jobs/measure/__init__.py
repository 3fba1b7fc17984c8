"""The costs of a network: multiply-adds, time, memory, energy."""
