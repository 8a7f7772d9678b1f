"""Benchmarks of correctness: predictions, findings and claims where the truth is known. They write pages of docs/."""
