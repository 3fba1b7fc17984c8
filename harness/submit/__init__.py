"""Where the jobs run: processes of this machine, or SLURM's arrays."""
