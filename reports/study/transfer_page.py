"""The page of a transfer: how well settings found on one architecture do on others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.sentences import counted, listed
from wtdiag.diagnostics.comparison.robustness import relative
from wtdiag.reports.document.content import Block, Figure, Report, Section, Table, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.style import fixed, sentence, short
from wtdiag.reports.study.shared import (
    Estimate,
    Methods,
    estimate,
    load,
    made_by,
    methods_of,
    not_done,
    settings_table,
    share,
    slug,
    tally,
    tidy,
    words,
)


def report(folder: Path) -> Report:
    """Build the report of a transfer from the results in its folder.

    Raises
    ------
    InputError
        If there are no results of a transfer.

    Examples
    --------
    >>> report(Path("runs/none"))
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: runs/none/results.nc: there are no results; ...
    """
    results = load(folder, "transfer")
    methods = methods_of(results)
    return Report(
        title=results.attrs["title"] or f"Transfer {folder.resolve().name}",
        verdict=verdict(results),
        sections=(
            *sections(results, methods),
            *not_done(results),
            Section("How it was done", (settings_table(results), *made_by(results))),
        ),
    )


def verdict(results: xr.Dataset) -> str:
    """State for each architecture but the source which method keeps the most of backpropagation's accuracy."""
    return _said(results, relative(results))


def _said(results: xr.Dataset, ratio: xr.Dataset) -> str:
    mean = ratio["mean"]
    source, reference = results.attrs["source"], results.attrs["reference"]
    others = [str(each) for each in results["rule"].values if each != reference]
    parts: list[str] = []
    for architecture in (str(each) for each in results["architecture"].values if each != source):
        here = {rule: float(mean.sel(rule=rule, architecture=architecture)) for rule in others}
        here = {rule: value for rule, value in here.items() if np.isfinite(value)}
        if not here:
            continue
        best, worst = max(here, key=here.__getitem__), min(here, key=here.__getitem__)
        of = "" if parts else f" of {reference}'s accuracy there"
        text = f"on {short(architecture)}, {short(best)} keeps {share(here[best])}{of}"
        parts.append(text + (f" and {short(worst)} {share(here[worst])}" if worst != best else ""))
    if not parts:
        return (
            "No configuration has finished on another architecture where backpropagation's has finished too, so "
            "nothing can be compared."
        )
    return sentence("; ".join(parts))


def sections(results: xr.Dataset, methods: Methods, name: str = "") -> tuple[Section, ...]:
    """Build the sections on a transfer; ``name`` tells it from others on the page."""
    ends, ratio = tally(results["status"]), relative(results)
    configurations, seeds = (
        counted(results.sizes["configuration"], "configuration"),
        counted(results.sizes["seed"], "seed"),
    )
    done = (
        f"The best {configurations} of each method on {results.attrs['source']} were trained on every architecture, "
        f"each with {seeds}: {listed([f'{count} {end}' for end, count in ends.items()])}."
    )
    blocks: list[Block] = [Text(f"{_said(results, ratio)} {done}" if name else done)]
    if figure := _matrix(results, ratio, methods, slug(name)):
        blocks.append(figure)
    blocks.append(_configurations(results, methods))
    return (Section(f"Transfer “{name}”" if name else "Transfer across architectures", tuple(blocks)),)


def _matrix(results: xr.Dataset, ratio: xr.Dataset, methods: Methods, tag: str) -> Figure | None:
    rules = methods.among(results)
    architectures = [str(each) for each in results["architecture"].values]
    values = ratio["mean"].sel(rule=rules).transpose("rule", "architecture").values
    if not np.isfinite(values).any():
        return None
    rows, texts = [], []
    for rule in rules:
        line = []
        for architecture in architectures:
            cell = ratio.sel(rule=rule, architecture=architecture)
            at = Estimate(float(cell["mean"]), float(np.maximum(0.0, cell["low"])), float(cell["high"]), int(cell["n"]))
            line.append(at.text(2).replace(" [", "\n["))
            numbers = (fixed(at.mean, 3), fixed(at.low, 3), fixed(at.high, 3), str(at.n), str(int(cell["left_out"])))
            rows.append((rule, architecture, *numbers))
        texts.append(line)
    reference = results.attrs["reference"]
    seeds = "" if results.sizes["seed"] > 1 else " One seed: no interval."
    return Figure(
        panels=(
            sized.matrix(
                values,
                texts,
                rows=rules,
                columns=_heads(results),
                title="Test accuracy relative to backprop",
            ),
        ),
        caption="Test accuracy relative to that of "
        f"{reference}'s best configuration on the same architecture with the same seed: the mean over configurations "
        f"and seeds, and in brackets its 95 % interval over both.{seeds} The source is {results.attrs['source']}."
        + ("" if np.isfinite(values).all() else " Cells with a dash have nothing to compare."),
        alt=_said(results, ratio),
        data=Table(
            "The numbers drawn.",
            ("rule", "architecture", "relative accuracy", "from", "to", "seeds", "seeds left out"),
            tuple(rows),
            labels=2,
        ),
        name=f"transfer-matrix{tag}",
        measures=("test_accuracy",),
    )


def _heads(results: xr.Dataset) -> list[str]:
    """Return the names of the architectures for the heads of columns, where the source's, which is long, is a word."""
    names = [str(each) for each in results["architecture"].values]
    return ["source" if each == results.attrs["source"] and "source" not in names else each for each in names]


def _configurations(results: xr.Dataset, methods: Methods) -> Table:
    parameters = [str(name) for name, each in results.data_vars.items() if set(each.dims) == {"rule", "configuration"}]
    architectures = [str(each) for each in results["architecture"].values]
    rows, picks = [], []
    for name in methods.among(results):
        for rank in results["configuration"].values:
            configuration = results.sel(rule=name, configuration=rank)
            if (configuration["status"] == "absent").all():
                continue
            values = [tidy(configuration[each].item()) for each in parameters]
            means = [estimate(configuration["test_accuracy"].sel(architecture=each)).mean for each in architectures]
            rows.append((name, str(int(rank) + 1), *values, *(fixed(100 * each) for each in means)))
            picks.append(name)
    return Table(
        "Every configuration, by its rank on the source: its parameters, and its test accuracy (%) on each "
        "architecture at the last step, averaged over seeds.",
        ("rule", "rank", *map(words, parameters), *map(short, _heads(results))),
        tuple(rows),
        subjects=methods.subjects,
        picks=methods.picks(picks),
    )
