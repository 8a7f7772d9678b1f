"""What the finding "undertrained" foretells, held against the same runs trained twice as long.

``python -m bench undertrained [FOLDER]`` trains three networks by up to four rules for several numbers of epochs, each
twice as many as the one before, and writes a table into docs/findings.md. Runs that FOLDER already holds are not
trained again. It takes about a quarter of an hour on one core. Expected result: what is said comes true in four of five
runs or more, and few silent runs gain 5 points.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

import wtdiag
from bench.evidence.page import fill, table
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.kinds.training import doubling, promise, undertrained
from wtdiag.probes.records.evaluations import evaluations
from wtdiag.trainers.config.datasets import DataCache, load_data

CHOSEN = 100
"""Seed of the runs on which what is said was chosen; those of other seeds judge it."""
NETWORKS: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[int, ...], tuple[int, ...]]] = {
    "mlp16": ({"model": "mlp", "depth": 16, "data": "digits"}, ("bp", "kp", "ia", "fa"), (5, 10, 20), (0,)),
    "conv": ({"model": "conv", "data": "glyphs"}, ("bp", "kp", "ia", "fa"), (2, 4, 8), (CHOSEN,)),
    "resnet8": ({"model": "resnet8", "data": "glyphs"}, ("ia", "fa"), (2, 4), (CHOSEN,)),
}
"""Settings of each network, rules, numbers of epochs, and seeds."""
_TOLERANCE = 0.02  # of an accuracy, for the size of the test sets


class Judged(NamedTuple):
    """A run, and what training it twice as long brought."""

    network: str
    rule: str
    epochs: int
    seed: int
    accuracy: float
    promised: tuple[float, float] | None
    gain: float

    @property
    def kept(self) -> bool:
        """Whether the gain lies where it was said to lie, up to the tolerance; if nothing was said, below 5 points."""
        if self.promised is None:
            return self.gain < 0.05
        return self.promised[0] - _TOLERANCE <= self.gain <= self.promised[1] + _TOLERANCE


def run(folder: str | None = None) -> None:
    """Train what is missing, and print and write the table."""
    with tempfile.TemporaryDirectory() as fresh:
        judged = list(_judge(Path(folder or fresh)))
    fill("findings.md", "undertrained", shown := judged_table(judged))
    print(shown)


def judged_table(judged: Sequence[Judged]) -> str:
    """Return the table of the runs, with a head that counts those in which what was said came true."""
    rows = [
        (each.network, f"`{each.rule}`", each.epochs, each.seed, f"{100 * each.accuracy:.0f}", _said(each.promised),
         f"{100 * each.gain:.0f}", "yes" if each.kept else "no")
        for each in judged
    ]  # fmt: skip
    spoken = [each for each in judged if each.promised]
    silent = [each for each in judged if not each.promised]
    total = (
        f"true: {sum(each.kept for each in spoken)} of {len(spoken)} that were found, "
        f"{sum(each.kept for each in silent)} of {len(silent)} others"
    )
    heads = ["network", "rule", "epochs", "seed", "accuracy (%)", "said to be added", "added by twice the epochs"]
    return table([*heads, total], rows)


def _judge(folder: Path) -> Iterator[Judged]:
    load = DataCache(load_data)
    for network, (settings, rules, every, seeds) in NETWORKS.items():
        for rule in rules:
            for seed in seeds:
                reached = {}
                for epochs in every:
                    path = folder / f"{network}-{rule}-e{epochs}-s{seed}"
                    asked = wtdiag.Settings(rule=rule, seed=seed, epochs=epochs, device="cpu", snapshots=6, **settings)
                    if not path.exists() or wtdiag.open_run(path).config["status"] != "finished":
                        for _ in wtdiag.Training(asked, path, dataset=load(asked), force=True):
                            pass
                    reached[epochs] = wtdiag.open_run(path)
                for epochs, longer in pairwise(every):
                    short, long = (_accuracy(reached[each]) for each in (epochs, longer))
                    yield Judged(network, rule, epochs, seed, short, _promised(reached[epochs]), long - short)


def _promised(run: Any) -> tuple[float, float] | None:
    view = View(xr.Dataset(coords={"step": run.steps, "layer": ["all"]}), run.config, run.metrics)
    found = doubling(view)
    return promise(found) if found is not None and list(undertrained(view)) else None


def _accuracy(run: Any) -> float:
    metrics: pd.DataFrame = run.metrics
    return float(evaluations(metrics, run.config, "accuracy").iloc[-1])


def _said(promised: tuple[float, float] | None) -> str:
    if promised is None:
        return "nothing"
    low, high = promised
    return f"≥ {100 * low:.0f}" if math.isinf(high) else f"{100 * low:.0f} to {100 * high:.0f}"
