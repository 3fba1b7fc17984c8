"""What a network costs: multiply-adds, time, memory, energy."""
