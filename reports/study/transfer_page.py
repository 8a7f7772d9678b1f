"""The page of a transfer: how well what was found on one architecture does on others."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import xarray as xr

from wtdiag.diagnostics.comparison.robustness import relative
from wtdiag.reports.document.content import Block, Figure, Report, Section, Table, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.style import fixed, short
from wtdiag.reports.publish import FORMATS, publish
from wtdiag.reports.study.shared import (
    Estimate,
    Methods,
    counted,
    estimate,
    listed,
    load,
    methods_of,
    not_done,
    settings_table,
    share,
    slug,
    tally,
    tidy,
    words,
)


def write(folder: str | os.PathLike[str], *, formats: Collection[str] = FORMATS, paper: str = "a4") -> list[Path]:
    """Write ``transfer.html`` and ``transfer.pdf`` into the folder of a transfer.

    Parameters
    ----------
    folder : path
        With ``results.nc``.
    formats : collection of {"html", "pdf"}
        Which to write.
    paper : {"a4", "letter"}
        What the PDF is set for.

    Returns
    -------
    list of Path
        The files written; earlier ones are replaced.

    Raises
    ------
    InputError
        If there are no results of a transfer, or the page cannot be written.

    Examples
    --------
    >>> write("runs/none")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: runs/none/results.nc: there are no results; ...
    """
    found = load(folder, "transfer")
    methods = methods_of(found)
    report = Report(
        title=found.attrs["title"] or f"Transfer {Path(folder).resolve().name}",
        verdict=verdict(found),
        sections=(
            *sections(found, methods),
            *not_done(found),
            Section("What was done", (settings_table(found),)),
        ),
    )
    return publish(report, Path(folder), "transfer", formats, paper)


def verdict(found: xr.Dataset) -> str:
    """State for each architecture but the source which method keeps the most of backpropagation's accuracy."""
    return _said(found, relative(found))


def _said(found: xr.Dataset, ratio: xr.Dataset) -> str:
    mean = ratio["mean"]
    source, reference = found.attrs["source"], found.attrs["reference"]
    others = [str(each) for each in found["rule"].values if each != reference]
    parts = []
    for architecture in (str(each) for each in found["architecture"].values if each != source):
        here = {rule: float(mean.sel(rule=rule, architecture=architecture)) for rule in others}
        here = {rule: value for rule, value in here.items() if np.isfinite(value)}
        if not here:
            continue
        best, worst = max(here, key=here.__getitem__), min(here, key=here.__getitem__)
        text = f"on {short(architecture)}, {short(best)} keeps {share(here[best])}"
        parts.append(text + (f" and {short(worst)} {share(here[worst])}" if worst != best else ""))
    if not parts:
        return "No configuration has been trained on another architecture to the end beside one of backpropagation."
    return f"Of {reference}'s accuracy there, {'; '.join(parts)}."


def sections(found: xr.Dataset, methods: Methods, name: str = "") -> tuple[Section, ...]:
    """Build what is said of a transfer; ``name`` tells it from others on a page."""
    ends, ratio = tally(found["status"]), relative(found)
    configurations, seeds = counted(found.sizes["configuration"], "configuration"), counted(found.sizes["seed"], "seed")
    done = (
        f"The {configurations} of each method that did best on {found.attrs['source']}, each with {seeds}: "
        f"{listed([f'{count} {end}' for end, count in ends.items()])}."
    )
    blocks: list[Block] = [Text(f"{_said(found, ratio)} {done}" if name else done)]
    if figure := _matrix(found, ratio, methods, slug(name)):
        blocks.append(figure)
    blocks.append(_configurations(found, methods))
    return (Section(f"Transfer{f' {name}' if name else ' across architectures'}", tuple(blocks)),)


def _matrix(found: xr.Dataset, ratio: xr.Dataset, methods: Methods, tag: str) -> Figure | None:
    rules = methods.among(found)
    architectures = [str(each) for each in found["architecture"].values]
    values = ratio["mean"].sel(rule=rules).transpose("rule", "architecture").values
    if not np.isfinite(values).any():
        return None
    rows, texts = [], []
    for rule in rules:
        line = []
        for architecture in architectures:
            cell = ratio.sel(rule=rule, architecture=architecture)
            at = Estimate(float(cell["mean"]), float(cell["low"]), float(cell["high"]), int(cell["n"]))
            line.append(at.text(2).replace(" [", "\n["))
            numbers = (fixed(at.mean, 3), fixed(at.low, 3), fixed(at.high, 3), str(at.n), str(int(cell["left_out"])))
            rows.append((rule, architecture, *numbers))
        texts.append(line)
    source, reference = found.attrs["source"], found.attrs["reference"]
    seeds = "" if found.sizes["seed"] > 1 else " One seed: no interval."
    return Figure(
        panels=(
            sized.matrix(
                values,
                texts,
                rows=rules,
                columns=[f"{each} (source)" if each == source else each for each in architectures],
                title="Test accuracy relative to backprop",
            ),
        ),
        caption="Test accuracy relative to that of "
        f"{reference}'s best configuration on the same architecture with the same seed: mean over configurations and "
        f"seeds, in brackets its 95 % bootstrap interval over both.{seeds} Grey: nothing to compare.",
        alt=_said(found, ratio),
        data=Table(
            "The numbers drawn.",
            ("rule", "architecture", "relative accuracy", "from", "to", "seeds", "seeds left out"),
            tuple(rows),
            labels=2,
        ),
        name=f"transfer-matrix{tag}",
        measures=("test_accuracy",),
    )


def _configurations(found: xr.Dataset, methods: Methods) -> Table:
    parameters = [str(name) for name, each in found.data_vars.items() if set(each.dims) == {"rule", "configuration"}]
    architectures = [str(each) for each in found["architecture"].values]
    rows, picks = [], []
    for name in methods.among(found):
        for rank in found["configuration"].values:
            one = found.sel(rule=name, configuration=rank)
            if (one["status"] == "absent").all():
                continue
            values = [tidy(one[each].item()) for each in parameters]
            means = [estimate(one["test_accuracy"].sel(architecture=each)).mean for each in architectures]
            rows.append((name, str(int(rank) + 1), *values, *(fixed(100 * each) for each in means)))
            picks.append(name)
    return Table(
        "Every configuration, by its rank on the source: its parameters, and its test accuracy (%) on each "
        "architecture at the last step, mean over seeds.",
        ("rule", "rank", *map(words, parameters), *map(short, architectures)),
        tuple(rows),
        subjects=methods.subjects,
        picks=methods.picks(picks),
    )
