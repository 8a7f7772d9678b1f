"""One thread per test process: several processes with several threads each spend their time waiting for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
