"""The parts of a study: grid, sweep and transfer. Each is a source of trainings and has a folder for its results.

`folder` holds and checks that folder for all three, `planned` hands out the cells of grid and transfer, `search` is one
method's share of a sweep, `trials` and `finished_sweep` read what a sweep found, `dataset` writes results.
"""
