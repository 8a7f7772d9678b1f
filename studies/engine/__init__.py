"""Where the trainings of a study run.

A `cell` is one training, the `pool` gives cells to `worker` processes, the `board` shows their progress, and `storage`
opens the database of a search.
"""
