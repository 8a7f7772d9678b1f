"""The parts of a study: grid, sweep and transfer. Each is a source of trainings and has a folder for its results."""
