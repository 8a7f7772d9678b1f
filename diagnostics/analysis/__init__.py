"""The analysis of a run: one labelled dataset of the measures of all its snapshots.

`survey` measures a snapshot and `analyze` a run; `derive` adds what follows over steps and layers, and `costs` defines
the attribution. `cluster` spreads the work over a dask cluster, and `freed_memory` keeps what it frees. `layout`
and `reading` interpret the result, and `view` presents it to detectors.
"""
