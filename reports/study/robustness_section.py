"""The robustness of a sweep: its curve, the parameters that matter, the best settings and how the trials ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from wtdiag.diagnostics.analysis.sentences import counted, listed
from wtdiag.diagnostics.comparison.robustness import best_accuracy, reached
from wtdiag.reports.document.content import Figure, Table
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.axes import spread
from wtdiag.reports.figures.style import fixed, number, percent, short
from wtdiag.reports.study.shared import Methods, share, tally, tidy, words

_MARK = 0.9  # the share of the reference's accuracy that sentences are about
_NOTED = 4  # the most methods that a sentence names
_SLICES = 8  # the most parameters over which trials are drawn
_DRAWN = 300  # the most trials of a method that are drawn over a parameter
_RANKED = 10  # the trials of each method that are listed


def verdict(search: xr.Dataset) -> str:
    """State the result of a sweep in a sentence."""
    reach = reached(search, [_MARK])
    reference = search.attrs["reference"]
    shares = {str(rule): float(reach["share"].sel(rule=rule)[0]) for rule in reach["rule"].values}
    shares = {rule: share for rule, share in shares.items() if np.isfinite(share)}
    if not shares:
        return f"No configuration of {reference} has finished, so there is nothing to compare with."
    order = sorted(shares, key=lambda rule: -shares[rule])
    parts = [f"{short(rule)} {share(shares[rule])}" for rule in order[:_NOTED]]
    rest = f"; fewer for {counted(len(order) - _NOTED, 'other method')}" if len(order) > _NOTED else ""
    return (
        f"Share of configurations that reach {share(_MARK)} of {reference}'s best validation accuracy "
        f"({percent(float(reach['best']))}): {', '.join(parts)}{rest}."
    )


def curve(search: xr.Dataset, methods: Methods, tag: str) -> Figure | None:
    """Draw the share of configurations that reach a share of the reference's best accuracy.

    Return None where the reference has no accuracy to compare with.
    """
    marks = np.linspace(0.5, 1, 51)
    reach = reached(search, marks)
    lines, rows = [], []
    for name in methods.among(search):
        shares, low, high = (100 * reach[part].sel(rule=name).values for part in ("share", "low", "high"))
        if not np.isfinite(shares).any():
            continue
        lines.append(
            sized.Curve(name, methods.look(name), 100 * marks, shares, gid=methods.gid(name), low=low, high=high)
        )
        picked = reach.sel(rule=name).isel(level=slice(None, None, 10))
        rows += [
            (name, share(float(at)), *(fixed(100 * float(value)) for value in values))
            for at, *values in zip(picked["level"], picked["share"], picked["low"], picked["high"], strict=True)
        ]
    if not lines:
        return None
    reference = search.attrs["reference"]
    return Figure(
        panels=(
            sized.curves(
                lines, title="Configurations (%)", x_label=f"that reach this share of {reference}'s best accuracy (%)"
            ),
            sized.curves(_best_so_far(search, methods), title="Best validation accuracy so far (%)", x_label="trial"),
        ),
        caption=f"Robustness: the share of all configurations tried that reach a share of {reference}'s best "
        "validation accuracy, with its exact 95 % interval. A configuration that diverged or was pruned reaches "
        "nothing; one that failed is left out. Right: the best accuracy after so many trials; where it still rises, "
        "more trials may find better settings.",
        alt=verdict(search),
        data=Table("Some of the numbers drawn.", ("rule", "level", "share (%)", "from", "to"), tuple(rows), labels=2),
        name=f"robustness{tag}",
        measures=("validation_accuracy",),
        subjects=methods.subjects,
    )


def _best_so_far(search: xr.Dataset, methods: Methods) -> list[sized.Curve]:
    """Return a curve for each method: the best accuracy of the trials that had finished by then."""
    accuracy = search["validation_accuracy"].where(search["status"] == "finished").transpose("rule", "trial")
    lines = []
    for name in methods.among(search):
        best = np.fmax.accumulate(100 * accuracy.sel(rule=name).values.astype(float))
        if np.isfinite(best).any():
            lines.append(
                sized.Curve(name, methods.look(name), np.arange(1, len(best) + 1), best, gid=methods.gid(name))
            )
    return lines


def importance(search: xr.Dataset, methods: Methods, tag: str) -> Figure | None:
    """Draw how much each parameter matters; return None if the results do not say."""
    if "importance" not in search or not np.isfinite(search["importance"]).any():
        return None
    order = np.argsort(-search["importance"].mean("rule").fillna(-1).values, kind="stable")
    shares = search["importance"].isel(parameter=order)  # the most important first
    parameters = [str(each) for each in shares["parameter"].values]
    values = {
        name: shares.sel(rule=name).values.astype(float)
        for name in methods.among(search)
        if np.isfinite(search["importance"].sel(rule=name)).any()
    }
    said = [
        f"{words(parameters[int(np.nanargmax(each))])} ({fixed(float(np.nanmax(each)), 2)}) for {name}"
        for name, each in values.items()
    ]
    return Figure(
        panels=(
            sized.by_row(
                values,
                [methods.look(name) for name in values],
                names=[words(each) for each in parameters],
                title="Importance",
                x_label="share of the explained variance",
            ),
        ),
        caption="How much each parameter explains of the differences in validation accuracy between a method's "
        "configurations; the shares of a method add up to 1.",
        alt=f"The most important parameter is {listed(said)}.",
        data=Table(
            "The numbers drawn.",
            ("rule", *map(words, parameters)),
            tuple((name, *(fixed(value, 2) for value in each)) for name, each in values.items()),
        ),
        name=f"importance{tag}",
        measures=("importance",),
    )


def slices(search: xr.Dataset, methods: Methods, tag: str) -> Figure | None:
    """Draw the accuracy of single trials over each parameter; return None if no trial has finished."""
    names = parameters(search)[:_SLICES]
    finished = search["validation_accuracy"].where(search["status"] == "finished").transpose("rule", "trial")
    here = [name for name in methods.among(search) if np.isfinite(finished.sel(rule=name)).any()]
    if not (here and names):
        return None
    kept = {name: np.flatnonzero(np.isfinite(finished.sel(rule=name))) for name in here}
    kept = {name: each[spread(len(each), _DRAWN)] for name, each in kept.items()}
    top = best_accuracy(search)
    panels, drawn = [], list[str]()
    for parameter in names:
        given = space(search)[parameter]
        points, choices = _over(search[parameter], finished, kept)
        if not points:
            continue
        drawn += [name for name in points if name not in drawn]
        panels.append(
            sized.slices(
                points,
                [methods.look(name) for name in points],
                [methods.gid(name) for name in points],
                title=f"Accuracy over {words(short(parameter, 12))} (%)",
                x_label=words(parameter),
                log=bool(given.get("log")) and not choices,
                names=choices,
                level=100 * top,
            )
        )
    if not panels:
        return None
    panels.append(sized.key({name: methods.look(name) for name in methods.among(search) if name in drawn}))
    rows, picks = _ranking(search, finished, here)
    line = f" Dashed: the best of {search.attrs['reference']}." if np.isfinite(top) else ""
    few = f" At most {_DRAWN} trials of a method are drawn." if max(map(len, kept.values())) == _DRAWN else ""
    return Figure(
        panels=tuple(panels),
        caption="Validation accuracy of every trial that finished, over each parameter: where good settings lie, and "
        f"whether a range should be wider.{line}{few}",
        alt=verdict(search),
        data=Table(
            f"The {_RANKED} best trials of each method.",
            ("rule", "trial", "validation accuracy (%)", *map(words, parameters(search))),
            tuple(rows),
            subjects=methods.subjects,
            picks=methods.picks(picks),
        ),
        name=f"slices{tag}",
        measures=("validation_accuracy",),
        subjects=methods.subjects,
    )


def _over(
    parameter: xr.DataArray, accuracy: xr.DataArray, kept: Mapping[str, NDArray[np.intp]]
) -> tuple[dict[str, tuple[ArrayLike, ArrayLike]], list[str]]:
    """Return the points of each method that has a parameter, and its choices if it is not a number."""
    values = {name: parameter.sel(rule=name).isel(trial=at).values for name, at in kept.items()}
    choices: list[str] = []
    if parameter.dtype.kind not in "fiu":
        texts = {name: each.astype(str).tolist() for name, each in values.items()}
        choices = list(dict.fromkeys(text for each in texts.values() for text in each if text))
        values = {
            name: np.array([choices.index(text) if text else np.nan for text in each]) for name, each in texts.items()
        }
    points = {}
    for name, at in kept.items():
        x, y = values[name].astype(float), 100 * accuracy.sel(rule=name).isel(trial=at).values
        if np.isfinite(x).any():
            points[name] = x[np.isfinite(x)], y[np.isfinite(x)]
    return points, choices


def _ranking(
    search: xr.Dataset, finished: xr.DataArray, names: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return rows on the best trials of each method, and the method of each row."""
    rows, picks = [], []
    for name in names:
        accuracy = finished.sel(rule=name).values.astype(float)
        order = np.argsort(-np.where(np.isfinite(accuracy), accuracy, -np.inf), kind="stable")
        for trial in order[: min(_RANKED, int(np.isfinite(accuracy).sum()))]:
            at = search.sel(rule=name).isel(trial=int(trial))
            values = (tidy(at[each].item()) for each in parameters(search))
            rows.append((name, str(trial), fixed(100 * accuracy[trial]), *values))
            picks.append(name)
    return rows, picks


def best(search: xr.Dataset, methods: Methods) -> Table:
    """Tabulate the best finished configuration of each method."""
    names = parameters(search)
    rows = []
    for name in methods.among(search):
        trials = search.sel(rule=name)
        accuracy = trials["validation_accuracy"].where(trials["status"] == "finished").values.astype(float)
        if not np.isfinite(accuracy).any():
            rows.append((name, "–", *("–" for _ in names)))
            continue
        at = trials.isel(trial=int(np.nanargmax(accuracy)))
        rows.append((name, percent(float(np.nanmax(accuracy))), *(tidy(at[each].item()) for each in names)))
    return Table(
        "The best configuration of each method, by validation accuracy.",
        ("rule", "validation accuracy", *map(words, names)),
        tuple(rows),
        subjects=methods.subjects,
        picks=methods.picks(row[0] for row in rows),
    )


def ends(search: xr.Dataset, methods: Methods) -> Table:
    """Tabulate how the trials of each method ended."""
    every = tally(search["status"])
    rows = []
    for name in methods.among(search):
        here = tally(search["status"].sel(rule=name))
        seconds = float(np.nansum(search["seconds"].sel(rule=name)))
        rows.append((name, *(str(here.get(end, "–")) for end in every), number(seconds)))
    return Table(
        "How the trials of each method ended, and how long they trained.",
        ("rule", *every, "training (s)"),
        tuple(rows),
        subjects=methods.subjects,
        picks=methods.picks(row[0] for row in rows),
    )


def space(search: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return the range of each searched parameter; it is empty where it cannot be read."""
    try:
        ranges = json.loads(search.attrs["space"])
    except ValueError:
        return {}
    return {name: each for name, each in ranges.items() if isinstance(each, dict)} if isinstance(ranges, dict) else {}


def parameters(search: xr.Dataset) -> list[str]:
    """Return the names of the searched parameters whose values the trials hold."""
    return [name for name in space(search) if name in search and set(search[name].dims) == {"rule", "trial"}]
