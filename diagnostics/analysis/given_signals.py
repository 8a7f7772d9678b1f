"""Error signals of networks that other code trains: those that a run recorded, or that a function returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.errors import InputError, check_one_of, with_type
from wtdiag.probes.records.arrays import LayerArrays
from wtdiag.probes.records.foreign import check_fit, checked_signals
from wtdiag.probes.records.schema import Run, layer_names, open_snapshot, read_layer, read_signals, snapshot_path

Array = NDArray[Any]


@dataclass
class GivenSignals:
    """The signals of a run at each step, as `diagnostics.analysis.survey.Signals`.

    Attributes
    ----------
    path : Path
        The run directory.
    function : callable or None
        Function that returns for a step, by layer, arrays under the names of `probes.records.arrays.SIGNALS`; None for
        the signals that the snapshots hold.
    """

    path: Path
    function: Callable[[int], Mapping[str, Mapping[str, Any]]] | None = None

    def __call__(self, step: int) -> dict[str, dict[str, Array]]:
        """Return the signals of a step by layer, with all that follows from them.

        Raises
        ------
        InputError
            If the function fails, returns something else, or its arrays do not fit the weights.
        """
        with open_snapshot(snapshot_path(self.path, step)) as file:
            names = layer_names(file)
            given = self._returned(step, names) if self.function else {name: read_signals(file, name) for name in names}
            return {name: _completed(name, read_layer(file, name), of) for name, of in given.items() if of}

    def names(self, step: int) -> frozenset[str]:
        """Return the names of the signals that any layer has at a step."""
        return frozenset(name for of in self(step).values() for name in of)

    def _returned(self, step: int, names: list[str]) -> dict[str, dict[str, Array]]:
        assert self.function is not None
        try:
            returned = self.function(step)
        except Exception as error:  # the function is the user's
            raise InputError(f"signals: failed at step {step} ({with_type(error)})") from error
        if not isinstance(returned, Mapping):
            raise InputError(f"signals: expected arrays by layer at step {step}, got {type(returned).__name__}")
        for name in returned:
            check_one_of("signals: layer", name, names)
        return {name: checked_signals(name, of) for name, of in returned.items()}


def _completed(name: str, layer: LayerArrays, given: Mapping[str, Array]) -> dict[str, Array]:
    """Return the signals of a layer and, if W is a matrix, those that follow from them.

    With x the inputs, δ the error and δ* the exact one: W x, B x, Bᵀδ, Wᵀδ, Wᵀδ*, Σ δ xᵀ and Σ δ* xᵀ.
    """
    known = dict(given)
    if layer.forward.ndim != 2 or layer.direct:
        return known
    w = layer.forward
    b = w if layer.feedback is None else layer.feedback
    check_fit(name, known, w.shape)
    if "inputs" in known:
        known.setdefault("forward_projection", known["inputs"] @ w.T)
        known.setdefault("feedback_projection", known["inputs"] @ b.T)
    if layer.carries_error:
        for key, error, matrix in (("sent", "delta", b), ("sent_local", "delta", w), ("sent_exact", "delta_exact", w)):
            if error in known:
                known.setdefault(key, known[error] @ matrix)
    for key, error in (("weight_gradient", "delta"), ("weight_gradient_exact", "delta_exact")):
        if error in known and "inputs" in known:
            known.setdefault(key, _outer(known[error], known["inputs"]))
    return known


def _outer(delta: Array, inputs: Array) -> Array:
    return np.asarray(delta.reshape(-1, delta.shape[-1]).T @ inputs.reshape(-1, inputs.shape[-1]))


def recorded_signals(run: Run) -> GivenSignals | None:
    """Return the signals that the snapshots of a run hold; None if the newest holds none."""
    if not run.steps.size:
        return None
    with open_snapshot(snapshot_path(run.path, int(run.steps[-1]))) as file:
        held = any(read_signals(file, name) for name in layer_names(file))
    return GivenSignals(run.path.resolve()) if held else None
