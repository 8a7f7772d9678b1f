"""Arrays in, numbers out: the arithmetic that several measures share. Nothing here is registered.

Only `probes.measures` and the other folders call it; it imports nothing of wtdiag but other kernels.
"""
