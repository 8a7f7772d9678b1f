"""Measure one snapshot: every probe on every layer, the layers side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from threadpoolctl import ThreadpoolController

from wtdiag.probes import PROBES, Quantities
from wtdiag.probes.errors import InputError
from wtdiag.probes.measures.spectra.singular_values import Spectrum
from wtdiag.probes.measures.spectra.subspaces import MODES
from wtdiag.probes.records.schema import layer_names, open_snapshot, read_layer, snapshot_path

Signals = Callable[[int], Mapping[str, Mapping[str, Any]]]
"""Gives for a step, by layer, what probes measure beside the weights, under the names of their parameters."""

Values = dict[str, Any]
"""Of one layer: variable name -> number, or one per mode."""


@dataclass(frozen=True)
class Row:
    """What was measured of one snapshot.

    Attributes
    ----------
    values : list of dict
        By layer, in the order asked for.
    finite : bool
        Whether all weights are finite, forward and feedback.
    failure : str
        Why there are no signals of this snapshot; empty if there are.
    """

    values: list[Values]
    finite: bool
    failure: str


@dataclass
class Survey:
    """Measures the snapshots of a run, one each time it is called.

    Before the first call it is names and paths alone, so it can be sent to another process.

    Attributes
    ----------
    path : Path
        The run directory.
    probes, layers : tuple of str
        Names of what to measure and where.
    signals : callable, optional
        As `Signals` says.
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
            If it is missing, not whole, or has other layers.
        """
        with open_snapshot(snapshot_path(self.path, step)) as file:
            if set(layer_names(file)) != set(self.layers):
                raise InputError(f"{file.filename}: has other layers than the last snapshot")
            given, failure = self._given(step)
            # One BLAS thread a layer, and layers side by side: faster than several threads on each in turn.
            with ThreadpoolController().limit(limits=1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
                measured = list(pool.map(lambda name: self._measure(file, name, given.get(name, {})), self.layers))
        return Row([values for values, _ in measured], all(finite for _, finite in measured), failure)

    def _given(self, step: int) -> tuple[Mapping[str, Mapping[str, Any]], str]:
        """Signals of a step; a network that overflows must not hide what its weights tell."""
        try:
            return (self.signals(step) if self.signals else {}), ""
        except InputError as error:
            return {}, str(error)

    def _measure(self, file: h5py.File, name: str, given: Mapping[str, Any]) -> tuple[Values, bool]:
        """Measure one layer, but for probes that it lacks something for; tell whether its weights are finite."""
        layer = read_layer(file, name)
        feedback = layer.forward if layer.feedback is None else layer.feedback
        known: dict[str, Any] = {"forward": layer.forward, "feedback": feedback, **given}
        known |= {"groups": layer.groups, "direct": layer.direct, "units": 1 if "Conv" in layer.kind else -1}
        known |= {"transposed": layer.kind.startswith("ConvTranspose")}
        if any("subspace_pairs" in PROBES[probe].uses for probe in self.probes):
            known["vectors"] = MODES  # with the singular values, not by a decomposition of their own
        if name in self._fixed:
            known["feedback_spectrum"] = self._fixed[name]
        quantities = Quantities(**known)
        values: Values = {}
        for probe in self.probes:
            if PROBES[probe].needs <= known.keys():
                values[probe] = quantities[probe]
                if (null := quantities.null(probe)) is not None:
                    values[f"{probe}_null"], values[f"{probe}_null_sd"] = null
                if layer.fixed and "feedback_spectrum" in PROBES[probe].uses:
                    self._fixed[name] = quantities["feedback_spectrum"]  # half of the work, and the same at every step
        return values, bool(np.isfinite(layer.forward).all() and np.isfinite(feedback).all())
