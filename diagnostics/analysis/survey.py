"""Survey of one snapshot: every probe on every layer, with the layers in parallel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from threadpoolctl import ThreadpoolController

from wtdiag.diagnostics.analysis.cluster import threads
from wtdiag.probes import PROBES, Quantities
from wtdiag.probes.errors import InputError, with_type
from wtdiag.probes.measures.spectra.singular_values import Spectrum
from wtdiag.probes.measures.spectra.subspaces import MODES
from wtdiag.probes.records.schema import layer_names, open_snapshot, read_layer, snapshot_path

Signals = Callable[[int], Mapping[str, Mapping[str, Any]]]
"""Function that returns for a step, by layer, what probes need besides the weights, under their parameters' names."""

Values = dict[str, Any]
"""Measures of one layer: a number, or one number per mode, by the name of the variable."""


@dataclass(frozen=True)
class Row:
    """Measures of one snapshot.

    Attributes
    ----------
    values : list of dict
        The measures of each layer, in the order of the survey.
    finite : bool
        Whether all forward and feedback weights are finite.
    failure : str
        Why this snapshot has no signals; empty if it has.
    """

    values: list[Values]
    finite: bool
    failure: str


@dataclass
class Survey:
    """A function that measures one snapshot of a run each time it is called.

    Before the first call it holds only names and paths, so it can be sent to another process.

    Attributes
    ----------
    path : Path
        The run directory.
    probes, layers : tuple of str
        Names of the probes, and of the layers that they measure.
    signals : callable, optional
        See `Signals`.
    """

    path: Path
    probes: tuple[str, ...]
    layers: tuple[str, ...]
    signals: Signals | None = None
    _fixed: dict[str, Spectrum] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, step: int) -> Row:
        """Measure the snapshot of ``step``.

        Raises
        ------
        InputError
            If it is missing or incomplete, or has other layers.
        """
        with open_snapshot(snapshot_path(self.path, step)) as file:
            if set(layer_names(file)) != set(self.layers):
                raise InputError(f"{file.filename}: has other layers than the last snapshot")
            given, failure = self._given(step)
            # One BLAS thread per layer, in parallel, is faster than several threads on one layer after the other.
            with ThreadpoolController().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads()) as pool:
                measured = list(pool.map(lambda name: self._measure(file, name, given.get(name, {})), self.layers))
        return Row([values for values, _ in measured], all(finite for _, finite in measured), failure)

    def _given(self, step: int) -> tuple[Mapping[str, Mapping[str, Any]], str]:
        """Return the signals of a step, or why there are none: weights are measured even if the network overflows."""
        try:
            return (self.signals(step) if self.signals else {}), ""
        except InputError as error:
            return {}, str(error)

    def _measure(self, file: h5py.File, name: str, given: Mapping[str, Any]) -> tuple[Values, bool]:
        """Measure one layer with the probes whose sources it has; also return whether its weights are finite."""
        layer = read_layer(file, name)
        feedback = layer.forward if layer.feedback is None else layer.feedback
        known: dict[str, Any] = {"forward": layer.forward, "feedback": feedback, **given}
        known |= {"groups": layer.groups, "direct": layer.direct, "units": 1 if layer.channels_first else -1}
        known |= {"transposed": layer.transposed}
        if any("subspace_pairs" in PROBES[probe].uses for probe in self.probes):
            known["vectors"] = MODES  # computed with the singular values, which saves a second decomposition
        if name in self._fixed:
            known["feedback_spectrum"] = self._fixed[name]
        quantities = Quantities(**known)
        values: Values = {}
        for probe in self.probes:
            if PROBES[probe].needs <= known.keys():
                values |= _value(quantities, probe) if PROBES[probe].room else _foreign_value(quantities, probe, name)
                if layer.fixed and "feedback_spectrum" in PROBES[probe].uses:
                    self._fixed[name] = quantities["feedback_spectrum"]  # half of the work
        return values, bool(np.isfinite(layer.forward).all() and np.isfinite(feedback).all())


def _value(quantities: Quantities, probe: str) -> Values:
    """Return a measure, and its mean and deviation by chance if it has them."""
    values: Values = {probe: quantities[probe]}
    if (null := quantities.null(probe)) is not None:
        values[f"{probe}_null"], values[f"{probe}_null_sd"] = null
    return values


def _foreign_value(quantities: Quantities, probe: str, layer: str) -> Values:
    """Return the same for a probe of another package, whose code may raise anything; nothing if it does."""
    try:
        values = _value(quantities, probe)
        if np.ndim(values[probe]) != len(PROBES[probe].dims):
            raise InputError(f"has {np.ndim(values[probe])} dims; expected {len(PROBES[probe].dims)}")
        return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    except Exception as error:
        module = PROBES[probe].function.__module__
        warnings.warn(f"{layer}: the probe {probe!r} of {module} is left out: {with_type(error)}", stacklevel=2)
        return {}
