"""Several runs against each other.

`pairing` says which runs may be compared, `compare` how they differ, `outcome` how a run ended, `intervals` how sure
that is, `results` reads what studies found, `robustness` sums a search up, and `tables` prints.
"""
