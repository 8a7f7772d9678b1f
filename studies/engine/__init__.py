"""Where the trainings of a study run: on workers of dask, here or on a cluster.

A `cell` is one training, and a `task` trains it on a worker. `workers` give cells to workers through a `link`;
`local_cluster` starts those of this machine, `slurm` writes the script that starts those of a Slurm cluster. The
`board` shows the progress, and `storage` opens the database of a search.
"""
