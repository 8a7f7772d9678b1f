"""Measure: pure functions on arrays, lifted over xarray in one place. Never loads torch."""
