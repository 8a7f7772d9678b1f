"""The page on one run: `single` puts its `sections` in order.

`sources` reads the run, `facts` sum it up, `summary` says it in sentences, `figure_tables` holds the numbers behind the
figures, `appendix` how to repeat the run, and `thin` leaves out snapshots of long runs.
"""
