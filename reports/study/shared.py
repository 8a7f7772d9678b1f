"""Parts that the pages of studies share: reading results, the look of each method, numbers with their intervals."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from wtdiag.diagnostics.comparison.intervals import of_mean
from wtdiag.diagnostics.comparison.results import RESULTS, STATUSES, read_results, settings_of
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import as_typed
from wtdiag.reports.document.content import Block, Code, Section, Subjects, Table
from wtdiag.reports.figures.axes import plain
from wtdiag.reports.figures.style import Look, distinct_looks, fixed, printable, short

_NAMES = ("title", "reference", "sampler", "source")  # attributes that pages show


def load(folder: str | os.PathLike[str], kind: str) -> xr.Dataset:
    """Read the results in a folder without those of single test examples, and make their texts printable.

    Raises
    ------
    InputError
        If there are no results, or they are results of another kind.
    """
    path = Path(folder) / RESULTS
    results = read_results(path).drop_dims("example", errors="ignore")
    if results.attrs.get("kind") != kind:
        raise InputError(f"{path}: holds the results of a {results.attrs.get('kind')!r}; expected those of a {kind!r}")
    texts = {
        str(name): (values.dims, np.vectorize(_printable, otypes=[object])(values.values))
        for name, values in results.variables.items()
        if values.dtype.kind in "OUST"
    }
    for dim in results["status"].dims:
        if results[dim].dtype.kind == "f" and not np.isfinite(results[dim]).all():
            raise InputError(f"{path}: {dim} has a level that is not a finite number")
        if dim in texts and len(set(texts[str(dim)][1])) < results.sizes[dim]:
            raise InputError(f"{path}: {dim} has levels that differ only in what cannot be printed")
    named = {key: _printable(value) for key, value in results.attrs.items() if key in _NAMES}
    return results.assign(texts).assign_attrs(named)


def _printable(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Methods:
    """The methods of a page, in order; each has its own look and its own place in the list that a reader picks from."""

    names: tuple[str, ...]

    @property
    def subjects(self) -> Subjects:
        """The methods as the subjects of figures and tables."""
        return Subjects("rules", "rule", self.names)

    def among(self, results: xr.Dataset) -> list[str]:
        """Return the methods that some results hold."""
        return [name for name in self.names if name in results["rule"].values]

    def gid(self, name: str) -> str:
        """Return the gid of a method's lines."""
        return f"run-{self.names.index(name)}"

    def picks(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the places of methods, one for each row of a table."""
        return tuple(self.names.index(name) for name in names)

    def look(self, name: str) -> Look:
        """Return a method's look: a rule's own, and for another method one that no other method of the page has."""
        return distinct_looks(self.names)[name]


def methods_of(*results: xr.Dataset) -> Methods:
    """Return the methods of some results, in their order."""
    return Methods(tuple(dict.fromkeys(str(rule) for each in results for rule in each["rule"].values)))


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float
    n: int

    def text(self, decimals: int = 1, suffix: str = "") -> str:
        """Return the mean as text, with its interval where there is one.

        Examples
        --------
        >>> Estimate(96.54, 95.3, 97.1, 5).text(suffix="°"), Estimate(96.54, np.nan, np.nan, 1).text()
        ('96.5° [95.3, 97.1]', '96.5')
        """
        if not np.isfinite(self.low):
            return fixed(self.mean, decimals, suffix)
        return f"{fixed(self.mean, decimals, suffix)} [{fixed(self.low, decimals)}, {fixed(self.high, decimals)}]"

    @property
    def ends(self) -> str:
        """Ends of the interval, as text.

        Examples
        --------
        >>> Estimate(1.54, -0.3, 3.4, 5).ends
        '−0.3 to 3.4'
        """
        return f"{fixed(self.low)} to {fixed(self.high)}" if np.isfinite(self.low) else "–"


def estimate(values: ArrayLike, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Return the mean of the finite values, and the part of its 95 % interval that lies between the bounds.

    A mean of few values has a wide interval, which may reach beyond what is possible, such as an accuracy of 120 %.

    Examples
    --------
    >>> estimate([1.0, 1.0, float("nan")])
    Estimate(mean=1.0, low=1.0, high=1.0, n=2)
    >>> estimate([90.0, 99.0], bounds=(0, 100)).ends
    '37.3 to 100.0'
    """
    finite = np.asarray(values, dtype=float).ravel()
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Estimate(np.nan, np.nan, np.nan, 0)
    low, high = np.clip(_interval(tuple(sorted(finite.tolist()))), *bounds).tolist()
    return Estimate(float(finite.mean()), low, high, len(finite))


_interval = lru_cache(4096)(of_mean)  # the same cells appear in the figure over each factor and in the tables


def tidy(value: Any) -> str:
    """Return a level or a parameter as short text.

    Examples
    --------
    >>> tidy(0.012345), tidy(8), tidy(float("nan")), tidy("conv"), tidy(True)
    ('0.0123', '8', '–', 'conv', 'True')
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, float):
        return printable(str(value))
    return plain(float(f"{value:.3g}")) if np.isfinite(value) else "–"


def share(value: float) -> str:
    """Return a share as text, in whole percent.

    Examples
    --------
    >>> share(0.953) == "95" + chr(0xA0) + "%"
    True
    """
    return fixed(100 * value, 0, "\N{NO-BREAK SPACE}%")


def words(name: str) -> str:
    """Return the name of a parameter or factor as words.

    Examples
    --------
    >>> words("update_noise")
    'update noise'
    """
    return printable(str(name)).replace("_", " ")


def tally(status: xr.DataArray) -> dict[str, int]:
    """Count how the trainings ended; those that are absent are not counted."""
    endings = [str(each) for each in status.values.ravel()]
    return {end: endings.count(end) for end in STATUSES if end != "absent" and end in endings}


def level(values: Mapping[Any, Any]) -> str:
    """Return a combination of levels as text.

    Examples
    --------
    >>> level({"depth": 8, "update_noise": 0.1, "model": "conv"})
    'depth 8, update noise 0.1, model conv'
    """
    return ", ".join(f"{words(name)} {tidy(value)}" for name, value in values.items())


def slug(text: str) -> str:
    """Return a part of a figure's name that no other text of the page leads to.

    Examples
    --------
    >>> slug("depth 8"), slug("Depth 8"), slug("")
    ('-depth-8', '-depth-8-...', '')
    """
    if not text:
        return ""
    part = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-")
    whole = re.fullmatch(r"[a-z0-9._]+( [a-z0-9._]+)*", text)  # if not, another text may lead to the same part
    return f"-{part}" if whole else f"-{part}-{crc32(text.encode()):08x}"


def without_blanks(table: Table) -> Table:
    """Return a table without its empty columns."""
    kept = [i for i in range(len(table.columns)) if any(row[i] not in ("–", "") for row in table.rows)]
    return Table(
        table.caption,
        tuple(table.columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in table.rows),
        labels=sum(i < table.labels for i in kept),
        subjects=table.subjects,
        picks=table.picks,
    )


def settings_table(results: xr.Dataset, caption: str = "The settings that all runs share.") -> Table:
    """Tabulate the settings that a dataset holds among its attributes."""
    flat = pd.json_normalize(settings_of(results)).to_dict(orient="records")[0] if settings_of(results) else {}
    rows = tuple((printable(str(name)), printable(_value(value))) for name, value in flat.items())
    return Table(caption, ("setting", "value"), rows, labels=2)


def made_by(results: xr.Dataset) -> tuple[Block, ...]:
    """Return the command that made a sweep or a transfer; results of earlier versions do not tell it."""
    command = results.attrs.get("command")
    return (Code("The command that made it:", printable(command)),) if command and isinstance(command, str) else ()


def _value(value: Any) -> str:
    return as_typed(value) if isinstance(value, str | float) else json.dumps(value, default=str, ensure_ascii=False)


def not_done(results: xr.Dataset, name: str = "") -> tuple[Section, ...]:
    """List the cells that have not finished, and why; return no section if all have.

    ``name`` tells the section from others of its kind on the page.
    """
    dims = [str(dim) for dim in results["status"].dims]
    varied = [dim for dim in dims if dim != "rule" and results.sizes[dim] > 1]
    reasons = results["reason"].transpose(*dims).values
    rows = []
    for index, status in np.ndenumerate(results["status"].values):
        if status not in ("finished", "absent"):
            levels = {dim: short(tidy(results[dim].values[i])) for dim, i in zip(dims, index, strict=True)}
            cell = ", ".join([levels["rule"], *(f"{short(words(dim))} {levels[dim]}" for dim in varied)])
            rows.append((short(cell, 64), f"{status}: {reasons[index]}" if reasons[index] else str(status)))
    if not rows:
        return ()
    caption = "Every cell that has not finished, and why. A cell that diverged counts as answering at chance."
    table = Table(caption, ("cell", "how it ended"), tuple(rows), labels=2)
    return (Section(f"Not finished{f' in {name}' if name else ''}", (table,)),)
