"""The measures of a layer, one small file per idea. A new measure is one new function in a file here.

- ``weights``: W and B entry by entry and unit by unit.
- ``spectra``: the singular values of W and B, their ranks, subspaces and tails.
- ``signals``: activations, error signals and gradients on one batch.
- ``dynamics``: the learning of B while W stands still.
"""
