"""Findings on an analysed run.

The functions in `kinds` detect faults, `thresholds` holds the numbers that they compare with, `diagnose` ranks what
they find, and `finding` is the record of one finding. A new kind is one function in a file of `kinds`.
"""
