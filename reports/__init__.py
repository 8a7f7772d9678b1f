"""Show: reads the analysis dataset and the run's settings and metrics, nothing else."""

from wtdiag.reports.publish import FORMATS, write

__all__ = ["FORMATS", "write"]
