"""Benchmarks of speed: ratios to native PyTorch and other libraries, measured side by side in one process."""
