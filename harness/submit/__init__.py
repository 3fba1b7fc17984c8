"""Who runs the jobs: SLURM's arrays or processes of this machine."""
