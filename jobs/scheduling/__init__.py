"""The one door to submitit and SLURM, and claims on what several jobs could do."""
