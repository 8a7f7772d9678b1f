"""What is measured of a layer, one small file per idea; a new measure is one new function here.

- ``weights``: W and B entry by entry and unit by unit.
- ``spectra``: their singular values, ranks, subspaces and tails.
- ``signals``: what goes through the network on one batch.
- ``dynamics``: how B learns while W stands still.
"""
