"""Measures of the singular values of W and B: norms, ranks, tails, outliers, subspaces."""
