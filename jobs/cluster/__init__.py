"""The one door to SLURM and submitit, and claims on work that several jobs could do."""
