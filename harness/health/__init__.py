"""What a machine and a cluster have for a run, looked at before one."""
