"""What a run is, on disk and over the wire: settings, cells, jobs, records, ids, the run folder. No torch, and nothing of SLURM."""
