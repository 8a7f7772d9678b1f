"""Failing and poor runs, each made again as its first finding advises, under the same number of steps.

``python -m bench advice [FOLDER]`` trains, analyses and diagnoses the runs on seeds on which no advice was developed,
follows the command of the first finding and that of another finding drawn at random, and writes the tables of
docs/advice.md. With a folder it keeps what it did there and goes on where it stopped. Expected result: the first
command helps in at least 80 % of the runs and harms at most 5 %.
"""

from __future__ import annotations

import random
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import wtdiag
from bench.evidence.page import fill, table
from bench.evidence.planted import MEASURES
from wtdiag.cli import cli
from wtdiag.diagnostics.analysis.derive import derive
from wtdiag.diagnostics.findings.advice import command
from wtdiag.diagnostics.findings.finding import Finding
from wtdiag.probes.records.config import command_options
from wtdiag.probes.records.files import read_json, write_json
from wtdiag.trainers.config.settings import Settings

SEEDS = (1,)
"""Seed of the tables; advice was developed on seeds 100 and 0."""
CHOSEN = (100,)
POINTS = 0.05  # a difference of accuracy that counts
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "mlp": {"model": "mlp", "depth": 16, "data": "digits", "epochs": 4.0},
    "conv": {"model": "conv", "depth": 5, "width": 8, "data": "glyphs", "image_size": 8, "epochs": 2.0},
    "resnet8": {"model": "resnet8", "width": 8, "data": "glyphs", "image_size": 8, "epochs": 2.0},
}
RUNS: Sequence[tuple[str, str, Mapping[str, Any]]] = (
    # rates of B that are too high
    ("mlp", "sa", {"feedback_lr": 25.0}),
    ("mlp", "wm", {"feedback_lr": 40.0}),
    ("mlp", "aa", {"feedback_optimizer": "sgd", "feedback_lr": 20.0}),
    ("mlp", "ia", {"feedback_optimizer": "sgd", "feedback_lr": 20.0}),
    ("mlp", "ia", {"feedback_lr": 0.3}),
    ("mlp", "aa", {"feedback_lr": 0.5}),
    ("conv", "sa", {"feedback_lr": 25.0}),
    ("conv", "wm", {"feedback_lr": 40.0}),
    ("conv", "aa", {"feedback_lr": 0.5}),
    ("resnet8", "sa", {"feedback_lr": 25.0}),
    # rates of B that are too low
    ("mlp", "sa", {"feedback_lr": 0.003}),
    ("mlp", "wm", {"feedback_lr": 0.003}),
    ("mlp", "aa", {"feedback_lr": 1e-5}),
    ("mlp", "wm-reg", {"feedback_lr": 0.003}),
    ("conv", "sa", {"feedback_lr": 0.003}),
    ("conv", "wm", {"feedback_lr": 0.003}),
    ("conv", "aa", {"feedback_lr": 1e-5}),
    ("resnet8", "wm", {"feedback_lr": 0.003}),
    ("resnet8", "aa", {"feedback_lr": 1e-5}),
    # coefficients that lead B to the wrong size or sign, or nowhere
    ("mlp", "sa", {"coefficients": {"self": 1.0}}),
    ("mlp", "sa", {"coefficients": {"self": 0.02}}),
    ("mlp", "sa", {"coefficients": {"self": -0.2}}),
    ("mlp", "wm", {"coefficients": {"decay": 0.01}}),
    ("mlp", "wm", {"coefficients": {"amp": 0.0}}),
    ("conv", "sa", {"coefficients": {"self": 1.0}}),
    ("conv", "wm", {"coefficients": {"amp": -0.1}}),
    ("resnet8", "sa", {"coefficients": {"self": 1.0}}),
    ("resnet8", "sa", {"coefficients": {"self": -0.2}}),
    ("mlp", "usf", {"coefficients": {"scale": 6.0}}),
    ("mlp", "frsf", {"coefficients": {"scale": 0.1}}),
    ("conv", "usf", {"coefficients": {"scale": 6.0}}),
    # a decay by which W forgets what it learned
    ("mlp", "kp", {"coefficients": {"decay": 0.4}}),
    ("conv", "kp", {"coefficients": {"decay": 0.2}}),
    ("conv", "pfa", {"coefficients": {"decay": 0.2}}),
    ("resnet8", "kp", {"coefficients": {"decay": 0.2}}),
    # rates of W that are too high or too low, and noise
    ("mlp", "sa", {"lr": 20.0}),
    ("mlp", "usf", {"lr": 1.0, "batch_norm": False}),
    ("conv", "sa", {"lr": 20.0}),
    ("resnet8", "sa", {"lr": 20.0}),
    ("mlp", "sa", {"lr": 1e-3}),
    ("conv", "usf", {"lr": 1e-3}),
    ("mlp", "sa", {"update_noise": 0.5, "noise_on": "feedback"}),
    ("conv", "sa", {"update_noise": 0.5, "noise_on": "feedback"}),
    # learning in alternation that leaves B behind
    ("mlp", "sa", {"alternate": 40}),
    ("conv", "wm", {"alternate": 40}),
    # defaults that do poorly in so few steps
    ("mlp", "fa", {}),
    ("mlp", "wm-reg", {}),
    ("conv", "fa", {}),
    ("conv", "ia", {}),
    ("conv", "wm-reg", {}),
    ("resnet8", "fa", {}),
    ("resnet8", "ia", {}),
)


@dataclass(frozen=True)
class Advised:
    """A run, and what became of it.

    Attributes
    ----------
    network, rule, change, seed
        The run: a key of `NETWORKS`, the rule, and its settings as options of ``wtdiag train``.
    kind, layer, advice
        The first finding, "" for one without severity, and the options of its command.
    before, after : float or None
        Accuracy at the end of the run and of the run made again; None if it diverged.
    other, others : str, float or None
        Options of the command of another finding, drawn at random, and the accuracy it leads to; "" if there is none.
    """

    network: str
    rule: str
    change: str
    seed: int
    kind: str
    layer: str
    advice: str
    before: float | None
    after: float | None
    other: str
    others: float | None

    @property
    def helped(self) -> bool:
        """Whether the first command raised the accuracy by five points, or kept the run from diverging."""
        return bool(self.advice) and better(self.before, self.after)

    @property
    def harmed(self) -> bool:
        """Whether the first command did the opposite."""
        return bool(self.advice) and better(self.after, self.before)


def better(before: float | None, after: float | None) -> bool:
    """Return whether an accuracy is better by five points, or the run no longer diverged."""
    return after is not None and (before is None or after >= before + POINTS)


def outcome(network: str, rule: str, change: Mapping[str, Any], seed: int, folder: Path) -> Advised:
    """Train a run, diagnose it, and follow the advice of its first finding and of another one."""
    random_choice = random.Random(f"{network} {rule} {change} {seed}")
    settings = Settings(**{**NETWORKS[network], "rule": rule, "seed": seed, "snapshots": 6, "device": "cpu", **change})
    path = folder / "run"
    before = accuracy(settings, path)
    findings = wtdiag.diagnose(path, derive(wtdiag.analyze(path, MEASURES)))
    first, *rest = [each for each in findings if each.severity in ("high", "medium")] or [findings[-1]]
    # More epochs would not be the same number of steps.
    different = [
        each for each in rest if each.changes and each.changes != first.changes and "epochs" not in each.changes
    ]
    other = random_choice.choice(different) if different else None
    if "epochs" in first.changes:  # the run that is left as it is takes as many steps
        before = accuracy(Settings(**{**settings.as_dict(), "epochs": first.changes["epochs"]}), folder / "longer")
    return Advised(
        network, rule, _options(change), seed,
        first.kind if first.severity in ("high", "medium") else "",
        first.layer or "all",
        _options(first.changes), before, followed(first, path),
        _options(other.changes) if other else "", followed(other, path) if other else None,
    )  # fmt: skip


def accuracy(settings: Settings, path: Path) -> float | None:
    """Train a run; return its accuracy on the test set, None if it diverged."""
    for _ in wtdiag.Training(settings, path, force=True):
        pass
    return _accuracy(path)


def followed(finding: Finding, path: Path) -> float | None:
    """Run the command of a finding as a user would, and return the accuracy that it leads to."""
    words = shlex.split(command(finding.changes, path).replace("\\\n", " "))[1:]
    if not words:
        return None
    cli.main([*words, "--force"], prog_name="wtdiag", standalone_mode=False)
    return _accuracy(Path(words[words.index("--out") + 1]))


def _accuracy(path: Path) -> float | None:
    run = wtdiag.open_run(path)
    tested = run.metrics["test_accuracy"].dropna() if "test_accuracy" in run.metrics else ()
    return float(tested.iloc[-1]) if run.config["status"] == "finished" and len(tested) else None


def _options(changes: Mapping[str, Any]) -> str:
    return " ".join(command_options(changes))


def outcomes(seeds: Sequence[int], folder: Path) -> list[Advised]:
    """Return the outcome of every run; those that the folder holds are not made again."""
    done = []
    for seed in seeds:
        for number, (network, rule, change) in enumerate(RUNS, start=1):
            kept = folder / f"{seed}-{network}-{rule}-{_options(change).replace(' ', '_') or 'defaults'}.json"
            if not kept.exists():
                with tempfile.TemporaryDirectory() as place:
                    write_json(kept, asdict(outcome(network, rule, change, seed, Path(place))))
            done.append(Advised(**read_json(kept)))
            print(number, *_row(done[-1]), sep="  ", flush=True)
    return done


def _row(run: Advised) -> tuple[str, ...]:
    effect = "helped" if run.helped else "harmed" if run.harmed else "no change" if run.advice else "no command"
    return (
        f"{run.network} {run.rule} {run.change}".strip(), f"{run.kind} ({run.layer})" if run.kind else "nothing",
        run.advice or "–", _percent(run.before), _percent(run.after) if run.advice else "–",
        f"{_percent(run.others)} ({run.other})" if run.other else "–", effect,
    )  # fmt: skip


def _percent(share: float | None) -> str:
    return "diverged" if share is None else f"{100 * share:.0f} %"


def runs_table(runs: Sequence[Advised]) -> str:
    """Return a table of all runs."""
    heads = ("run", "first finding", "its advice", "unchanged", "advised", "another finding's advice", "effect")
    rows = [tuple(cell.replace("|", "\\|") for cell in _row(run)) for run in runs]
    return table(heads, rows)


def kinds_table(runs: Sequence[Advised]) -> str:
    """Return a table of how often the first finding of each kind helped, against another one's advice."""
    rows = []
    for kind in [*sorted({run.kind for run in runs}), None]:
        mine = [run for run in runs if kind is None or run.kind == kind]
        both = [run for run in mine if run.other]
        counts = (
            _share(sum(run.helped for run in mine), len(mine)),
            _share(sum(run.harmed for run in mine), len(mine)),
            _share(sum(better(run.before, run.others) for run in both), len(both)),
            _share(sum(better(run.others, run.before) for run in both), len(both)),
        )
        rows.append(("**all**" if kind is None else kind or "nothing found", *counts))
    return table(("first finding", "helped", "harmed", "another finding's: helped", "harmed"), rows)


def _share(count: int, of: int) -> str:
    return f"{count} of {of}" if of else "–"


def run(folder: str = "", seeds: Sequence[int] = SEEDS) -> None:
    """Make all runs, print the tables, and write them into the documentation."""
    with tempfile.TemporaryDirectory() as empty:
        place = Path(folder or empty)
        place.mkdir(parents=True, exist_ok=True)
        done = outcomes(seeds, place)
    for name, text in (("kinds", kinds_table(done)), ("runs", runs_table(done))):
        print(text, end="\n\n")
        if tuple(seeds) == SEEDS:
            fill("advice.md", name, text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1] if sys.argv[1:] else "", CHOSEN)
