"""Show: reads the analysis dataset and the run's settings and metrics, nothing else."""
