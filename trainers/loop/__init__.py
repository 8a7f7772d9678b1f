"""The training loop of ``wtdiag train``: it starts runs, takes steps, shows progress, and estimates the cost."""
