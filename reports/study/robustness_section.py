"""How much of a search works: the robustness curve, what matters, what is best and how the trials ended."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.comparison.robustness import reached
from wtdiag.reports.document.content import Figure, Table
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.style import fixed, number, percent, short
from wtdiag.reports.study.shared import Methods, counted, listed, share, tally, tidy, words

_MARK = 0.9  # the share of the reference's accuracy that sentences are about
_NOTED = 4  # methods that a sentence names


def verdict(search: xr.Dataset) -> str:
    """State the result of a search in a sentence."""
    found = reached(search, [_MARK])
    reference = search.attrs["reference"]
    shares = {str(rule): float(found["share"].sel(rule=rule)[0]) for rule in found["rule"].values}
    shares = {rule: share for rule, share in shares.items() if np.isfinite(share)}
    if not shares:
        return f"No configuration of {reference} has finished: nothing can be compared with it."
    order = sorted(shares, key=lambda rule: -shares[rule])
    parts = [f"{short(rule)} {share(shares[rule])}" for rule in order[:_NOTED]]
    rest = f"; of {counted(len(order) - _NOTED, 'other method')} fewer" if len(order) > _NOTED else ""
    return (
        f"Share of configurations that reach {share(_MARK)} of {reference}'s best validation accuracy "
        f"({percent(float(found['best']))}): {', '.join(parts)}{rest}."
    )


def curve(search: xr.Dataset, methods: Methods, tag: str) -> Figure | None:
    """Draw the share of configurations that reach a share of the reference's best; None where nothing can be told."""
    marks = np.linspace(0.5, 1, 51)
    found = reached(search, marks)
    lines, rows = [], []
    for name in methods.among(search):
        shares, low, high = (100 * found[part].sel(rule=name).values for part in ("share", "low", "high"))
        if not np.isfinite(shares).any():
            continue
        lines.append(
            sized.Curve(name, methods.look(name), 100 * marks, shares, gid=methods.gid(name), low=low, high=high)
        )
        picked = found.sel(rule=name).isel(level=slice(None, None, 10))
        rows += [
            (name, share(float(at)), *(fixed(100 * float(value)) for value in values))
            for at, *values in zip(picked["level"], picked["share"], picked["low"], picked["high"], strict=True)
        ]
    if not lines:
        return None
    reference = search.attrs["reference"]
    return Figure(
        panels=(
            sized.curves(lines, title="Configurations that reach it (%)", x_label=f"share of {reference}'s best (%)"),
        ),
        caption=f"Robustness: share of all configurations tried that reach a share of {reference}'s best validation "
        "accuracy, with its exact 95 % interval. One that diverged or was pruned "
        "reaches nothing, one that failed is left out.",
        alt=verdict(search),
        data=Table("Some of the numbers drawn.", ("rule", "level", "share (%)", "from", "to"), tuple(rows), labels=2),
        name=f"robustness{tag}",
        measures=("validation_accuracy",),
        subjects=methods.subjects,
    )


def importance(search: xr.Dataset, methods: Methods, tag: str) -> Figure | None:
    """Draw how much each parameter matters; None where it was not told."""
    if "importance" not in search or not np.isfinite(search["importance"]).any():
        return None
    parameters = [str(each) for each in search["parameter"].values]
    found = {
        name: search["importance"].sel(rule=name).values.astype(float)
        for name in methods.among(search)
        if np.isfinite(search["importance"].sel(rule=name)).any()
    }
    said = [
        f"{words(parameters[int(np.nanargmax(each))])} ({fixed(float(np.nanmax(each)), 2)}) for {name}"
        for name, each in found.items()
    ]
    return Figure(
        panels=(
            sized.by_row(
                found,
                [methods.look(name) for name in found],
                names=[words(each) for each in parameters],
                title="Importance",
                x_label="share of what is explained",
            ),
        ),
        caption="How much of the differences in validation accuracy between a method's configurations each parameter "
        "explains; 1 is all that is explained.",
        alt=f"What matters most: {listed(said)}.",
        data=Table(
            "The numbers drawn.",
            ("rule", *map(words, parameters)),
            tuple((name, *(fixed(value, 2) for value in each)) for name, each in found.items()),
        ),
        name=f"importance{tag}",
        measures=("importance",),
    )


def best(search: xr.Dataset, methods: Methods) -> Table:
    """Tabulate the best finished configuration of each method."""
    names = parameters(search)
    rows = []
    for name in methods.among(search):
        one = search.sel(rule=name)
        accuracy = one["validation_accuracy"].where(one["status"] == "finished").values.astype(float)
        if not np.isfinite(accuracy).any():
            rows.append((name, "–", *("–" for _ in names)))
            continue
        at = one.isel(trial=int(np.nanargmax(accuracy)))
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
    """Give the range of each searched parameter; empty where it cannot be read."""
    try:
        found = json.loads(search.attrs["space"])
    except ValueError:
        return {}
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def parameters(search: xr.Dataset) -> list[str]:
    """Name the searched parameters whose values the trials tell."""
    return [name for name in space(search) if name in search and set(search[name].dims) == {"rule", "trial"}]
