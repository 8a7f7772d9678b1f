"""Where the trainings of a study run: processes that each train one cell after another, and the storage of searches."""
