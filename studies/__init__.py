"""Many trainings as one experiment: grids of settings, searches for settings, and transfer of the best ones.

- ``file``: the study file, read and checked.
- ``parts``: the grid, the sweep and the transfer.
- ``engine``: where the trainings run.
- ``predict``: their stability, predicted before or during the training.
- ``study`` runs a whole study, ``estimate`` estimates its cost; ``small/``, ``medium/``, ``full/`` are built in.
"""
