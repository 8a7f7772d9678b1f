"""What the pages of studies share: results read once, methods that keep their looks, numbers with their intervals."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
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
from wtdiag.reports.document.content import Section, Subjects, Table
from wtdiag.reports.figures.axes import plain
from wtdiag.reports.figures.style import LOOKS, Look, fixed, look, printable, short

_NAMES = ("title", "reference", "sampler", "source")  # attributes that pages show


def load(folder: str | os.PathLike[str], kind: str) -> xr.Dataset:
    """Read the results in a folder, their texts made printable.

    Raises
    ------
    InputError
        If there are none, or they are not of that kind of folder.
    """
    path = Path(folder) / RESULTS
    found = read_results(path)
    if found.attrs.get("kind") != kind:
        raise InputError(f"{path}: holds the results of a {found.attrs.get('kind')!r}; expected those of a {kind!r}")
    texts = {
        str(name): (values.dims, np.vectorize(_printable, otypes=[object])(values.values))
        for name, values in found.variables.items()
        if values.dtype.kind in "OUST"
    }
    for dim in found["status"].dims:
        if found[dim].dtype.kind == "f" and not np.isfinite(found[dim]).all():
            raise InputError(f"{path}: {dim} has a level that is no finite number")
        if dim in texts and len(set(texts[str(dim)][1])) < found.sizes[dim]:
            raise InputError(f"{path}: {dim} has levels that differ only in what cannot be printed")
    named = {key: _printable(value) for key, value in found.attrs.items() if key in _NAMES}
    return found.assign(texts).assign_attrs(named)


def _printable(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Methods:
    """The methods of a page, in its order; each has one look and one place in what a reader can pick."""

    names: tuple[str, ...]

    @property
    def subjects(self) -> Subjects:
        """The methods as what figures and tables are about."""
        return Subjects("rules", "rule", self.names)

    def among(self, found: xr.Dataset) -> list[str]:
        """Give those that some results hold."""
        return [name for name in self.names if name in found["rule"].values]

    def gid(self, name: str) -> str:
        """Mark a line as of a method."""
        return f"run-{self.names.index(name)}"

    def picks(self, names: Iterable[str]) -> tuple[int, ...]:
        """Give the places of methods, for the rows of a table."""
        return tuple(self.names.index(name) for name in names)

    def look(self, name: str) -> Look:
        """Give a method's look: a rule's own, and for others one that no method of the page has."""
        taken = {LOOKS[other] for other in self.names if other in LOOKS}
        free = [each for rule, each in LOOKS.items() if each not in taken]
        for other in self.names:
            own = other in LOOKS or not free
            drawn = look(other) if own else free.pop(crc32(other.encode()) % len(free))
            if other == name:
                return drawn
        raise KeyError(name)


def methods_of(*results: xr.Dataset) -> Methods:
    """Collect the methods of some results, in their order."""
    return Methods(tuple(dict.fromkeys(str(rule) for found in results for rule in found["rule"].values)))


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float
    n: int

    def text(self, decimals: int = 1, suffix: str = "") -> str:
        """Write it with its interval, where there is one.

        Examples
        --------
        >>> Estimate(96.54, 95.3, 97.1, 5).text(suffix="°"), Estimate(96.54, np.nan, np.nan, 1).text()
        ('96.5° [95.3, 97.1]', '96.5')
        """
        if not np.isfinite(self.low):
            return fixed(self.mean, decimals, suffix)
        return f"{fixed(self.mean, decimals, suffix)} [{self.low:.{decimals}f}, {self.high:.{decimals}f}]"

    @property
    def ends(self) -> str:
        """Write the ends of the interval.

        Examples
        --------
        >>> Estimate(96.54, 95.3, 97.1, 5).ends
        '95.3 to 97.1'
        """
        return f"{fixed(self.low)} to {fixed(self.high)}" if np.isfinite(self.low) else "–"


def estimate(values: ArrayLike) -> Estimate:
    """Give the mean of those values that are numbers, and its bootstrap interval.

    Examples
    --------
    >>> estimate([1.0, 1.0, float("nan")])
    Estimate(mean=1.0, low=1.0, high=1.0, n=2)
    """
    found = np.asarray(values, dtype=float).ravel()
    found = found[np.isfinite(found)]
    if not len(found):
        return Estimate(np.nan, np.nan, np.nan, 0)
    return Estimate(float(found.mean()), *_interval(tuple(sorted(found.tolist()))), len(found))


_interval = lru_cache(4096)(of_mean)  # the same cells are in figures over each factor and in tables


def tidy(value: Any) -> str:
    """Write a level or a parameter briefly.

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
    """Write a share as whole percent.

    Examples
    --------
    >>> share(0.953) == "95" + chr(0xA0) + "%"
    True
    """
    return fixed(100 * value, 0, "\N{NO-BREAK SPACE}%")


def words(name: str) -> str:
    """Write a parameter's or factor's name as words.

    Examples
    --------
    >>> words("update_noise")
    'update noise'
    """
    return printable(str(name)).replace("_", " ")


def counted(number: int, what: str) -> str:
    """Count things.

    Examples
    --------
    >>> counted(1, "cell"), counted(3, "cell")
    ('1 cell', '3 cells')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """Join words as a sentence does.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def tally(status: xr.DataArray) -> dict[str, int]:
    """Count how trainings ended; what is absent is not counted."""
    found = [str(each) for each in status.values.ravel()]
    return {end: found.count(end) for end in STATUSES if end != "absent" and end in found}


def level(values: Mapping[Any, Any]) -> str:
    """Name a combination of levels.

    Examples
    --------
    >>> level({"depth": 8, "update_noise": 0.1, "model": "conv"})
    'depth 8, update noise 0.1, model conv'
    """
    return ", ".join(f"{words(name)} {tidy(value)}" for name, value in values.items())


def slug(text: str) -> str:
    """Give a part of a figure's name that no other text of the page gives.

    Examples
    --------
    >>> slug("depth 8"), slug("Depth 8"), slug("")
    ('-depth-8', '-depth-8-...', '')
    """
    if not text:
        return ""
    part = re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-")
    whole = re.fullmatch(r"[a-z0-9._]+( [a-z0-9._]+)*", text)  # else others may give the same part
    return f"-{part}" if whole else f"-{part}-{crc32(text.encode()):08x}"


def without_blanks(table: Table) -> Table:
    """Drop the columns in which nothing stands."""
    kept = [i for i in range(len(table.columns)) if any(row[i] not in ("–", "") for row in table.rows)]
    return Table(
        table.caption,
        tuple(table.columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in table.rows),
        labels=sum(i < table.labels for i in kept),
        subjects=table.subjects,
        picks=table.picks,
    )


def settings_table(found: xr.Dataset, caption: str = "Settings that all its runs share.") -> Table:
    """Tabulate the settings in a dataset's attributes."""
    flat = pd.json_normalize(settings_of(found)).to_dict(orient="records")[0] if settings_of(found) else {}
    rows = tuple((printable(str(name)), printable(_value(value))) for name, value in flat.items())
    return Table(caption, ("setting", "value"), rows, labels=2)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def not_done(found: xr.Dataset, name: str = "") -> tuple[Section, ...]:
    """List what has not finished, and why; nothing where all has. ``name`` tells whose it is on a page with others."""
    dims = [str(dim) for dim in found["status"].dims]
    told = [dim for dim in dims if dim != "rule" and found.sizes[dim] > 1]
    reasons = found["reason"].transpose(*dims).values
    rows = []
    for index, status in np.ndenumerate(found["status"].values):
        if status not in ("finished", "absent"):
            levels = {dim: short(tidy(found[dim].values[i])) for dim, i in zip(dims, index, strict=True)}
            cell = ", ".join([levels["rule"], *(f"{short(words(dim))} {levels[dim]}" for dim in told)])
            rows.append((short(cell, 64), f"{status}: {reasons[index]}" if reasons[index] else str(status)))
    if not rows:
        return ()
    caption = "Every cell that has not finished, and why. One that diverged counts as answering at chance."
    table = Table(caption, ("cell", "how it ended"), tuple(rows), labels=2)
    return (Section(f"Not finished{f' in {name}' if name else ''}", (table,)),)
