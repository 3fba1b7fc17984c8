"""What a launch will run: the graph of stages that cells share, the jobs, and the problems that can be known beforehand."""
