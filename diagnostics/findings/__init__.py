"""Findings on an analysed run.

The functions in `kinds` detect faults, `thresholds` holds the numbers that they compare with, `severity` says how
severe a finding is, `diagnose` ranks the findings, `finding` is the record of one, and `instability` compares
predicted with observed instability. A new kind is one function in a file of `kinds`.
"""
