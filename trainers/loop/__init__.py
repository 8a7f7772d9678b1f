"""The training loop of ``wtdiag train``: it starts and resumes runs, shows their progress, and estimates their cost."""
