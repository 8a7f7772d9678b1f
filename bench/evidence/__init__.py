"""Benchmarks of correctness.

Those of predictions, findings and claims, where the truth is known, write pages of docs/. ``kills`` and ``full_disk``
stop commands and fill disks, and check that nothing is lost.
"""
