"""The processes that train the cells of a study, and the storage of searches."""
