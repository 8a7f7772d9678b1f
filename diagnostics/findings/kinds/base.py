"""Kinds of findings: the text of each, and the function that detects it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wtdiag.diagnostics.analysis.reading import known, measure_of
from wtdiag.diagnostics.analysis.view import Floats, Mask, View
from wtdiag.diagnostics.findings.advice import Remedy
from wtdiag.diagnostics.findings.finding import Evidence
from wtdiag.diagnostics.findings.thresholds import THRESHOLDS, limit
from wtdiag.probes.discovery import Registry, enter
from wtdiag.probes.errors import check_one_of


@dataclass(frozen=True)
class Sighting:
    """A fault that a detector saw: its layer, its first and last snapshot, its severity and the evidence.

    ``layer``, ``first`` and ``last`` are indices, and ``layer`` is None for the whole network. ``remedies`` come
    before those of the kind.
    """

    layer: int | None
    first: int
    last: int
    severity: str
    summary: str
    evidence: tuple[Evidence, ...]
    remedies: tuple[Remedy | str, ...] = ()


Detector = Callable[[View], Iterator[Sighting]]


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes
    ----------
    name : str
        The name under which findings of this kind are written.
    meaning, equation, reference : str
        What it means for learning, and the equation and the source that it rests on.
    remedies : tuple of Remedy or str
        What to try, the best first; see `diagnostics.findings.advice`.
    detect : callable
        Function that yields a `Sighting` for each place where it sees the fault.
    needs : tuple of str
        Measures without which it cannot be looked for.
    effects : frozenset of str
        Kinds that follow from it in the same layer.
    effects_below : frozenset of str
        Kinds that follow from it anywhere between the layer and the input, and in the network as a whole.
    order : int
        Its place among findings of one severity: `FAULT`, `TIME` or `RESULT`.
    command : str
        The command that measures what it rests on, if that is not part of an analysis; else empty.
    """

    name: str
    meaning: str
    remedies: tuple[Remedy | str, ...]
    equation: str
    reference: str
    detect: Detector
    needs: tuple[str, ...]
    effects: frozenset[str]
    effects_below: frozenset[str]
    order: int
    command: str = ""


FAULT, TIME, RESULT = range(3)
"""What a kind says: what is wrong, that training was too short, or only what came of it, which needs no finding of its
own where another kind says why."""


def _check(kind: Kind) -> None:
    """Require that the measures that a kind needs are known."""
    for need in kind.needs:
        check_one_of(f"{kind.name}: needs", measure_of(need), known())


KINDS: Registry[Kind] = Registry(
    "kind of finding", "wtdiag.findings", decorator="kind", source=lambda kind: kind.detect, check=_check
)

SPOILED = (
    "divergence", "feedback-too-large", "feedback-too-small", "bn-runaway", "feedback-too-slow", "noisy-feedback",
    "not-aligning", "inherited-error", "signal-below-floor", "forward-step-too-large",
)  # fmt: skip
"""Kinds that errors which blow up cause in the layers that they reach."""


def kind(
    name: str,
    *,
    meaning: str,
    advice: Sequence[Remedy | str],
    equation: str,
    reference: str,
    needs: tuple[str, ...] = (),
    effects: tuple[str, ...] = (),
    effects_below: tuple[str, ...] = (),
    order: int = FAULT,
    command: str = "",
) -> Callable[[Detector], Detector]:
    """Register a detector in `KINDS` under a name; the arguments are the attributes of `Kind`, ``advice`` its remedies.

    A remedy that is a text always fits, and says what no setting expresses.
    """

    def register(detect: Detector) -> Detector:
        below = frozenset(effects_below)
        remedies = (advice,) if isinstance(advice, str) else tuple(advice)  # a text is a sequence of texts too
        entry = Kind(
            name,
            meaning,
            remedies,
            equation,
            reference,
            detect,
            needs,
            frozenset(effects) | below,
            below,
            order,
            command,
        )
        enter(KINDS, "kind", name, entry)
        return detect

    return register


def evidence(
    view: View, measure: str, step: int, layer: int, relation: str, threshold: str | float, units: str = "1"
) -> Evidence:
    """Return one number of the analysis with its threshold: a name in the table, or a number in ``units``."""
    value, units = (
        (THRESHOLDS[threshold].value, THRESHOLDS[threshold].units) if isinstance(threshold, str) else (threshold, units)
    )
    return Evidence(measure, float(view[measure][step, layer]), value, relation, units, int(view.steps[step]))


def growth(values: Floats) -> Floats:
    """Return by layer the last finite value over the first positive one, NaN where there is none.

    Examples
    --------
    >>> growth(np.array([[np.nan, 2.0], [4.0, 1.0], [12.0, np.nan]]))
    array([3. , 0.5])
    """
    grown = np.full(values.shape[1], np.nan)
    for layer, column in enumerate(values.T):
        finite = column[np.isfinite(column)]
        if (finite > 0).any():
            grown[layer] = finite[-1] / finite[finite > 0][0]
    return grown


def blind(view: View) -> Mask:
    """Return by layer whether the loss ignores the size of the weights, as under batch norm."""
    unknown = np.isnan(view["radial_cosine"]).all(axis=0)
    typical = np.nanmedian(np.where(unknown, np.inf, np.abs(view["radial_cosine"])), axis=0)
    return np.asarray(typical <= limit("radial_cosine"))


def last_stretch(holds: Mask, known: Mask) -> tuple[int, int] | None:
    """Return the first and the last of the consecutive snapshots, up to the last known one, in which a condition holds.

    Examples
    --------
    >>> last_stretch(np.array([True, False, True, True, False]), known=np.array([True, True, True, True, False]))
    (2, 3)
    """
    indices = np.flatnonzero(known)
    if not len(indices) or not holds[indices[-1]]:
        return None
    fails = np.flatnonzero(~holds[indices])
    return int(indices[fails[-1] + 1 if len(fails) else 0]), int(indices[-1])


def of_others(sizes: Floats) -> Floats:
    """Return by step and layer the median of the other layers' positive sizes; 1 where there are none."""
    others = np.ones_like(sizes)
    for step, row in enumerate(sizes):
        for layer in range(len(row)):
            rest = np.delete(row, layer)
            rest = rest[rest > 0]
            if len(rest):
                others[step, layer] = np.median(rest)
    return others
