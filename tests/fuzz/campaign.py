"""Many cases on several processes: ``python -m tests.fuzz.campaign [CASES [FIRST]]``; 10,000 by default, from seed 0.

A process that ends by a signal, or is stuck where Python cannot interrupt it, is a fault of its case, and another takes
its place. Ends with exit code 1 if there are faults; each names its seed: ``... campaign 1 SEED`` makes it alone.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.fuzz.cases import MEMORY, SECONDS, Outcome, make_sound, one, peak

PATIENCE = 30 * SECONDS
_ROUND = 200
"""Cases that a process makes before another takes its place, so that what one leaves in memory does not add up."""

_RELIEVED = 75
"""Exit code of a process that leaves the rest of its cases to another."""


def run(cases: int, first: int, jobs: int) -> list[Outcome]:
    """Make cases, print how they went, and return those in which something was wrong."""
    began, ended, wrong = time.monotonic(), Counter[str](), []
    seeds = iter(range(first, first + cases))
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        make_sound(Path(folder, "sound"))
        busy: dict[Connection, tuple[multiprocessing.process.BaseProcess, list[int], float]] = {}
        left = True
        while left or busy:
            while left and len(busy) < jobs:
                some = list(islice(seeds, _ROUND))
                left = bool(some)
                if some:
                    _begin(context, busy, Path(folder), some)
            for connection in wait(list(busy), 1.0):
                assert isinstance(connection, Connection)
                process, some, _ = busy.pop(connection)
                try:
                    outcome = connection.recv()
                except EOFError:
                    process.join()
                    if some and process.exitcode == _RELIEVED:
                        _begin(context, busy, Path(folder), some)
                        continue
                    if some:
                        outcome = Outcome(some[0], "?", (), f"the process ended with exit code {process.exitcode}")
                        _begin(context, busy, Path(folder), some[1:])
                    else:
                        continue
                else:
                    busy[connection] = process, some[1:], time.monotonic()
                ended["fault" if outcome.wrong else "one line" if outcome.said else "a result"] += 1
                if outcome.wrong:
                    wrong.append(outcome)
                    print(outcome, flush=True)
            for process, _, since in busy.values():
                if time.monotonic() - since > PATIENCE:
                    process.kill()
            _show(ended, cases, began)
    print(f"\n{dict(ended)} in {time.monotonic() - began:.0f} s on {jobs} processes")
    return wrong


def _begin(context, busy, folder: Path, seeds: list[int]) -> None:
    if seeds:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, folder, seeds), daemon=True)
        process.start()
        theirs.close()
        busy[ours] = process, seeds, time.monotonic() + PATIENCE


def _work(connection: Connection, folder: Path, seeds: list[int]) -> None:
    import torch

    torch.set_num_threads(1)
    for seed in seeds:
        outcome = one(seed, folder / "sound", folder / str(os.getpid()))
        if not outcome.wrong and peak() > MEMORY:
            outcome = Outcome(seed, outcome.call, outcome.damages, f"the process held {peak() / 2**30:.1f} GB")
        connection.send(outcome)
        if peak() > MEMORY:  # another process makes the rest, because this one's peak would count against all of them
            sys.exit(_RELIEVED)


def _show(ended: Counter[str], cases: int, began: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{ended.total()} of {cases}, {time.monotonic() - began:.0f} s", end="", file=sys.stderr)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    found = run(numbers[0] if numbers else 10_000, numbers[1] if len(numbers) > 1 else 0, len(os.sched_getaffinity(0)))
    sys.exit(bool(found))
