"""Ratios against native PyTorch, always measured side by side in one process: ``python -m bench``."""
