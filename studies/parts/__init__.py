"""The parts of a study: a grid, a sweep and a transfer, each a source of trainings and a folder of results."""
