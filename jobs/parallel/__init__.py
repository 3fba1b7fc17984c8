"""Ranks and DeepSpeed: rendezvous, engine, sharded weights and masks on them, checkpoints."""
