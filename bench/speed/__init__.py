"""How fast: ratios against native PyTorch and others, measured side by side in one process."""
