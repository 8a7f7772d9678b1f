"""CPU seconds of the commands after a training, for ResNet-20 with ten snapshots: analyze in three ways, and report.

``python -m bench analysis [FOLDER]`` trains one short run for each rule, or takes those that a folder holds, and copies
them. ``again`` is an analysis after which nothing has changed. All commands include the start of the interpreter, and
``analyze`` the reports. Expected result: without start and report, ``--fast`` takes a quarter of the whole; a report
takes less than 6 s.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RULES = ("sa", "kp", "ia", "wm", "aa")
TRAINING = ("--model", "resnet20", "--data", "glyphs", "--epochs", "0.3", "--snapshots", "10")


def run(folder: str = "") -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(folder or scratch)
        print(f"{'rule':6}{'analyze':>9}{'again':>8}{'--fast':>8}{'report':>8}   CPU seconds")
        for rule in RULES:
            if not (runs / rule).exists():
                _seconds("train", "--rule", rule, *TRAINING, "--out", str(runs / rule))
            whole, fast = Path(scratch) / f"{rule}-whole", Path(scratch) / f"{rule}-fast"
            for copy in (whole, fast):
                shutil.copytree(runs / rule, copy, ignore=shutil.ignore_patterns("analysis.nc"))
            spent = [_seconds("analyze", str(whole)), _seconds("analyze", str(whole))]
            spent += [_seconds("analyze", "--fast", str(fast)), _seconds("report", str(whole))]
            print(
                f"{rule:6}" + "".join(f"{each:{width}.1f}" for each, width in zip(spent, (9, 8, 8, 8), strict=True)),
                flush=True,
            )


def _seconds(*words: str) -> float:
    """Return the CPU seconds of one ``wtdiag`` command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "wtdiag", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
