"""Measures of the learning of B while W stands still: step-size number, relaxation time and fixed point."""
