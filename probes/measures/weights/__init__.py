"""Measures of W and B entry by entry and unit by unit: angles, signs, norms, distances."""
