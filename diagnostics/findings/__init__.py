"""From an analysis to findings.

`kinds` detect, `thresholds` decide what is severe, `diagnose` ranks,
and `finding` is the record.
A new kind is one function in a file of `kinds`.
"""
