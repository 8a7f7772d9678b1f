"""Measures of how B learns while W stands still: the step-size number, the relaxation time, the resting point."""
