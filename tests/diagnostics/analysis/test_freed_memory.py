"""Memory that is freed is kept where an analysis asks for it."""

import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource
from contextlib import nullcontext
import numpy as np
from wtdiag.diagnostics.analysis.freed_memory import freed_memory_kept

with freed_memory_kept() if {kept} else nullcontext():
    for _ in range(50):
        np.ones(2**18)  # 2 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="allocators differ")
def test_pages_are_not_cleared_again_where_freed_memory_is_given_back_at_once():
    def faults(kept):
        environment = {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
        words = [sys.executable, "-c", SCRIPT.format(kept=kept)]
        return int(subprocess.run(words, check=True, capture_output=True, env=environment, text=True).stdout)

    pages = 2**21 // resource.getpagesize()
    assert faults(kept=False) - faults(kept=True) > 40 * pages
