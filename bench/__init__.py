"""Benchmarks of cost (`bench.speed`) and of correctness (`bench.evidence`): ``python -m bench``."""
