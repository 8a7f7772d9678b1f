"""Default recipes against the best that a search finds: each rule on fully connected, convolutional and residual nets.

``python -m bench recipes [TRIALS]`` searches the learning rates and the coefficients of each rule on each network, with
at most TRIALS trials (30; fewer on the larger networks) scored on held-out training examples, runs the defaults beside
them, and writes the tables of docs/recipes.md. Finished trials are kept in runs/recipes, so a second start goes on
where the first one stopped; trials are added in turns, so the tables are complete after any of them. With TRIALS = 0 it
runs the defaults on the small networks alone and writes the tables of what is there.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

import wtdiag
from bench.evidence.page import fill, table
from wtdiag.studies.engine.storage import open_storage, sqlite_url
from wtdiag.studies.file.space import Range, Space
from wtdiag.trainers import data
from wtdiag.trainers.rules import RULES
from wtdiag.trainers.rules.primitives import PRIMITIVES

PAGE, FOLDER = "recipes.md", Path("runs", "recipes")
HOLDOUT, SEARCH_SEED, SEEDS = 0.2, 0, (1, 2)
"""Share of the training set that is held out, seed of the trials, and seeds on which the defaults are run."""
ENOUGH = 0.9
"""Share of the best found accuracy that a default should reach."""
TURNS = (1 / 2, 1)
"""Shares of the trials after which all cells have had a turn."""
LR = Range(0.01, 1.0, log=True)
DECADE = 10.0
"""Factor by which a search may move a rate or a coefficient from its default, either way."""


@dataclass(frozen=True)
class Net:
    """A network, its training, and the share of the trials that it gets."""

    settings: dict[str, Any]
    share: float = 1.0

    @property
    def convolutional(self) -> bool:
        """Whether it has convolutions, all with batch norm."""
        return self.settings["model"] != "mlp"


NETS = {
    "mlp 4": Net({"model": "mlp", "depth": 4}),
    "conv": Net({"model": "conv", "data": "glyphs", "epochs": 3}, 0.5),
    "mlp 8": Net({"model": "mlp", "depth": 8}),
    "resnet8": Net({"model": "resnet8", "data": "glyphs", "epochs": 3}, 0.4),
    "mlp 16": Net({"model": "mlp", "depth": 16}),
    "resnet20": Net({"model": "resnet20", "data": "glyphs", "epochs": 2}, 0.1),
}


SMALL = ("mlp 4", "mlp 8", "conv", "resnet8")
"""Networks on which the defaults of all rules are run without a search."""


@dataclass(frozen=True)
class RecipeCell:
    """One rule on one network, with its trials in a storage."""

    rule: str
    net: str
    storage: optuna.storages.BaseStorage

    @cached_property
    def study(self) -> optuna.Study:
        """The trials; those that are not promising after an epoch are pruned."""
        return optuna.create_study(
            storage=self.storage,
            study_name=f"{self.rule} on {self.net}",
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=SEARCH_SEED, n_startup_trials=4),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        )

    @property
    def done(self) -> list[FrozenTrial]:
        """The trials that ended; one that was stopped with the search does not count."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def settings(self, seed: int, **searched: Any) -> wtdiag.Settings:
        """Return the settings of one run; values that are not settings are coefficients."""
        known = {field.name for field in dataclasses.fields(wtdiag.Settings)}
        given = {name: value for name, value in searched.items() if name in known}
        coefficients = {name: value for name, value in searched.items() if name not in known}
        return wtdiag.Settings(
            rule=self.rule,
            seed=seed,
            holdout=HOLDOUT,
            snapshots=2,
            device="cpu",
            coefficients=coefficients,
            **NETS[self.net].settings | given,
        )

    def search(self, trials: float) -> None:
        """Add trials until there are ``trials``, times the network's share.

        The first are the best of similar networks, and the default with a higher and a lower learning rate.
        """
        missing = max(1, round(trials * NETS[self.net].share)) - len(self.done)
        if missing > 0 and not self.study.get_trials(deepcopy=False):
            for params in [each.params for each in self.best_elsewhere()] + self.neighbours():
                self.study.enqueue_trial(params)
        for _ in range(missing):
            self.study.optimize(self.trial, n_trials=1)

    def neighbours(self) -> list[dict[str, Any]]:
        """Return the default with learning rates on either side of it."""
        recipe, rule = RULES[self.rule].recipe, RULES[self.rule]()
        lr = recipe.convolutional_lr if NETS[self.net].convolutional else recipe.forward_lr
        rest = {
            name: recipe.lr if name == "feedback_lr" else getattr(rule, name)
            for name in space(self.rule)
            if name != "lr"
        }
        return [{"lr": lr * factor, **rest} for factor in (2.5, 0.4)]

    def best_elsewhere(self) -> list[FrozenTrial]:
        """Return the best trials of this rule on the other networks that share weights, or share none, as this one."""
        kind = NETS[self.net].convolutional
        like = [net for net, other in NETS.items() if net != self.net and other.convolutional == kind]
        return [best for net in like if (best := RecipeCell(self.rule, net, self.storage).best)]

    def trial(self, trial: Trial) -> float:
        """Train at values that the sampler suggests; return the accuracy at the last step."""
        searched = {name: given.suggest(trial, name) for name, given in space(self.rule).items()}
        accuracy = 0.0
        for epoch, accuracy in accuracies(self.settings(SEARCH_SEED, **searched)):
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    @property
    def best(self) -> FrozenTrial | None:
        """The best trial that ran to its end."""
        complete = [each for each in self.done if each.state == TrialState.COMPLETE]
        return max(complete, key=lambda each: each.value or 0.0, default=None)

    @property
    def ratio(self) -> float:
        """Accuracy of the default relative to the best found; NaN if one is not known or no trial has learned."""
        best, found = self.best, self.defaults(run=False)
        return fmean(found) / (best.value or 0.0) if best and self.learned and found else math.nan

    @property
    def learned(self) -> bool:
        """Whether a trial has learned: it is at least twice as often right as by chance."""
        chance = 1 / dataset(self.settings(SEARCH_SEED).data).classes
        return self.best is not None and (self.best.value or 0.0) >= 2 * chance

    def defaults(self, *, run: bool = True) -> list[float]:
        """Return the accuracies with the default recipe; they are kept in the storage, by the values that it had.

        A recipe from before a coefficient existed did what its default does.
        """
        kept: dict[str, float] = self.study.user_attrs.get("defaults", {})
        now, found = default_values(self.rule), []
        for seed in SEEDS:
            same = [key for key in kept if json.loads(key)[0] == seed and json.loads(key)[1].items() <= now.items()]
            if not same and run:
                same = [json.dumps([seed, now])]
                *_, (_, kept[same[0]]) = accuracies(self.settings(seed))
                self.study.set_user_attr("defaults", kept)
            found += [kept[key] for key in same[:1]]
        return found


def default_values(rule: str) -> dict[str, Any]:
    """Return the rates and coefficients of a rule that are its defaults."""
    return dataclasses.asdict(RULES[rule].recipe) | dataclasses.asdict(RULES[rule]())


def space(rule: str) -> Space:
    """Return the ranges that are searched for a rule.

    Of a sum of primitives, the coefficient that pulls B towards W is fixed, because all others are relative to it:
    their common scale is a learning rate under SGD, and is without effect under Adam.
    """
    recipe, ranges = RULES[rule].recipe, {"lr": LR}
    if RULES[rule].learned and recipe.optimizer != "forward":
        ranges["feedback_lr"] = around(recipe.lr)
    for field in dataclasses.fields(RULES[rule]):
        pulls = field.name in PRIMITIVES and PRIMITIVES[field.name].pulls
        searched = field.name in PRIMITIVES or (field.name == "scale" and not RULES[rule].learned)
        if searched and not pulls:
            ranges[field.name] = around(field.default)
        elif field.default == "activations" and hasattr(RULES[rule], "amp"):  # B* depends on what B learns from
            ranges[field.name] = Range(choices=field.metadata["choices"])
    return ranges


def around(value: Any) -> Range:
    """Return a decade on either side of a value."""
    return Range(value / DECADE, value * DECADE, log=True)


@cache
def dataset(name: str) -> data.Data:
    """Return a data set, which all runs share."""
    return data.load(name)


def accuracies(settings: wtdiag.Settings) -> Iterator[tuple[int, float]]:
    """Train; yield each epoch and the accuracy on the held-out examples after it, chance if the run diverged."""
    whole = dataset(settings.data)
    with tempfile.TemporaryDirectory() as folder:
        training = wtdiag.Training(settings, Path(folder, "run"), dataset=whole)
        for progress in training:
            epoch, within = divmod(progress.step, training.epoch)
            if progress.status == "diverged":
                yield epoch + 1, 1 / whole.classes  # the epoch in which it diverged
            elif not within:
                yield epoch, progress.test_accuracy


def run(trials: int = 30) -> None:
    """Search and run the defaults, in turns, and print and write the tables after each."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    storage = open_storage(sqlite_url(FOLDER / "trials.db"))
    rules = sorted(RULES.keys() - {"sum"}, key=lambda name: (not RULES[name].learned, name))  # a sum has no defaults
    cells = [RecipeCell(rule, net, storage) for net in NETS for rule in rules]
    for share in TURNS if trials else (0,):
        for cell in cells:
            if trials:
                cell.search(trials * share)
            if trials or cell.net in SMALL:
                cell.defaults()
            print(*row(cell), sep="  ", flush=True)
        write(cells)
    print(verdict(cells))


def write(cells: Sequence[RecipeCell]) -> None:
    """Write the tables of the page from the trials that there are."""
    heads = "rule", "network", "trials", "best found, %", "at", "default, %", "seeds", "ratio"
    fill(PAGE, "searches", f"{verdict(cells)}\n\n{table(heads, [row(cell) for cell in cells if cell.best])}")
    fill(PAGE, "recipes", defaults_table(cell.rule for cell in cells))
    fill(PAGE, "defaults", accuracies_table(cells))


def verdict(cells: Sequence[RecipeCell]) -> str:
    """State in how many cells the default reaches enough, and name the others and those that have not been run."""
    ratios = {f"`{cell.rule}` on {cell.net}": cell.ratio for cell in cells}
    known = {name: ratio for name, ratio in ratios.items() if not math.isnan(ratio)}
    short = [f"{name} ({ratio:.2f})" for name, ratio in known.items() if ratio < ENOUGH]
    parts = [f"{len(known) - len(short)} of {len(known)} defaults reach {100 * ENOUGH:g} % of the best found"]
    parts += [f"short of it: {', '.join(short)}"] if short else []
    failed = [f"`{cell.rule}` on {cell.net}" for cell in cells if cell.best and not cell.learned]
    parts += [f"no trial has learned: {', '.join(failed)}"] if failed else []
    missing = Counter(
        cell.net for cell in cells if math.isnan(cell.ratio) and f"`{cell.rule}` on {cell.net}" not in failed
    )
    lacking = ", ".join(f"{count} of the rules on {net}" for net, count in missing.items())
    parts += [f"not run or not searched yet: {lacking}"] if missing else []
    return "; ".join(parts) + "."


def row(cell: RecipeCell) -> tuple[str, ...]:
    """Return the row of a cell: the best that was found and where, the default, and their ratio."""
    best, found = cell.best, cell.defaults(run=False)
    trials = f"{len(cell.done)}, {sum(each.state == TrialState.PRUNED for each in cell.done)} pruned"
    params = {} if best is None else best.params
    at = ", ".join(f"{name} {value if isinstance(value, str) else f'{value:.2g}'}" for name, value in params.items())
    peak = f"{100 * (best.value or 0.0):.1f}" if best else ""
    mean = f"{100 * fmean(found):.1f}" if found else ""
    ratio = "" if math.isnan(cell.ratio) else f"{cell.ratio:.2f}"
    return f"`{cell.rule}`", cell.net, trials, peak, at, mean, str(len(found)), ratio


def defaults_table(rules: Iterable[str]) -> str:
    """Return the default rates and coefficients of each rule as a Markdown table."""
    rows = []
    for name in dict.fromkeys(rules):
        recipe, rule = RULES[name].recipe, RULES[name]()
        ours = f"{recipe.optimizer}, {recipe.lr:g}" if recipe.optimizer != "forward" else "as the forward weights"
        given = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
        if given.get("inputs") == "activations":
            del given["noise_std"]
        coefficients = ", ".join(f"{key} {value:g}" for key, value in given.items() if not isinstance(value, str))
        rates = recipe.forward_lr, recipe.convolutional_lr, ours if rule.learned else ""
        rows.append((f"`{name}`", *rates, coefficients))
    return table(("rule", "lr", "lr, convolutional", "feedback optimiser, lr", "coefficients"), rows)


def accuracies_table(cells: Sequence[RecipeCell]) -> str:
    """Return the accuracies of the defaults on the small networks as a Markdown table, with a row for each rule."""
    found = {(cell.rule, cell.net): cell.defaults(run=False) for cell in cells if cell.net in SMALL}
    rules = dict.fromkeys(rule for (rule, _), values in found.items() if values)
    means = {key: f"{100 * fmean(values):.1f}" if values else "" for key, values in found.items()}
    return table(("rule", *SMALL), [(f"`{rule}`", *(means.get((rule, net), "") for net in SMALL)) for rule in rules])
