"""The costs of the feedback at one snapshot of a run, computed as soon as it is known at which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.cluster import Each
from wtdiag.diagnostics.analysis.costs import COSTS
from wtdiag.diagnostics.analysis.survey import Row

Attribution = Callable[[int], Mapping[str, tuple[float, ...]]]
"""Function that returns for a step, by layer, what the feedback costs: an angle in degrees, and a share of the decrease
of the loss under backprop, each with its standard error, in the order of `diagnostics.analysis.costs.COSTS`."""


class NewestCosts:
    """The costs of the feedback at the newest snapshot with finite weights.

    Parameters
    ----------
    attribution
        Function that computes them; None if they are not wanted.
    each
        A `map` for it; if it begins with its work at once, that goes on beside the measuring of other snapshots.
    steps
        The steps of all snapshots.
    earlier, kept
        An earlier analysis, and the steps whose values are taken from there.
    """

    def __init__(
        self,
        attribution: Attribution | None,
        each: Each[Any],
        steps: Sequence[int],
        earlier: xr.Dataset | None,
        kept: Collection[int],
    ) -> None:
        self._attribution, self._each, self._steps, self._earlier, self._kept = attribution, each, steps, earlier, kept
        self._found: dict[int, Iterator[Mapping[str, tuple[float, ...]]]] = {}

    def look(self, rows: Mapping[int, Row]) -> None:
        """Look for that snapshot among those that are measured so far."""
        if self._attribution is None or self._found:
            return
        for step in reversed(self._steps):
            if step not in rows:
                return
            if rows[step].finite and not rows[step].failure:
                known = _earlier_costs(self._earlier, step) if step in self._kept else None
                self._found[step] = iter([known]) if known else iter(self._each(self._attribution, [step]))
                return

    def found(self) -> dict[int, Mapping[str, tuple[float, ...]]]:
        """Return the costs by their step; empty if there is no such snapshot."""
        return {step: next(costs) for step, costs in self._found.items()}


def _earlier_costs(earlier: xr.Dataset | None, step: int) -> Mapping[str, tuple[float, ...]] | None:
    """Return the attribution of a snapshot from an earlier analysis, if it was measured there."""
    if earlier is None or not COSTS.keys() <= set(earlier.data_vars):
        return None
    table = np.stack([earlier[name].sel(step=step).values for name in COSTS], axis=1)
    if np.isnan(table).all():
        return None
    return {str(layer): tuple(row) for layer, row in zip(earlier["layer"].values, table.tolist(), strict=True)}
