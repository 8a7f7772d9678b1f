"""The arithmetic that several measures share: functions that take arrays and return numbers. None is registered.

Measures and other folders call these functions, which import nothing of wtdiag but other kernels.
"""
