"""What runs on the nodes: rendezvous, DeepSpeed engine, loaders, training, evaluation, profiling; and the one door to submitit."""
