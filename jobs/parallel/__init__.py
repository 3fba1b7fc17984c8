"""Ranks and DeepSpeed: rendezvous, engine, sharded weights, the masks on them, checkpoints, and memory of the process."""
