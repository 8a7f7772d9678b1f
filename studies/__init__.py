"""Many trainings as one experiment: grids of settings, searches for settings, and whether what was found transfers.

- ``file``: what a study file says.
- ``parts``: grid, sweep and transfer.
- ``engine``: where the trainings run.
- ``predict``: what theory says of them beforehand.
- ``study`` runs a whole study, ``estimate`` tries it without training; ``small/`` and ``full/`` hold the built-in ones.
"""
