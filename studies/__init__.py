"""Many trainings as one experiment: grids of settings, searches for settings, and whether what was found transfers."""
