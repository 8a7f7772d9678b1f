"""One thread per test process, and the same examples in each run.

Several processes with several threads each spend their time waiting for each other.
"""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
