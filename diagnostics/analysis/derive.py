"""Measures derived from others: how the gain grows with the weights, and norm ratios and angles over all layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.layout import carrying, flag
from wtdiag.probes import Measure
from wtdiag.probes.discovery import enter

MOVED = 0.05
"""Smallest relative change of ‖W‖ over which a slope is meaningful."""

Array = NDArray[np.float64]


Function = Callable[[xr.Dataset], Array]


@dataclass(frozen=True, kw_only=True)
class Derived(Measure):
    """A measure that is derived from others.

    Attributes
    ----------
    sources : tuple of str
        Names of the measures from which it is derived.
    dims : tuple of str
        ("step", "layer"), or ("step",).
    function : callable
        Function that returns its values for an analysis that holds the sources.
    """

    sources: tuple[str, ...]
    dims: tuple[str, ...]
    function: Function

    def __call__(self, analysis: xr.Dataset) -> xr.DataArray:
        """Return the measure for an analysis."""
        coords = {dim: analysis[dim] for dim in self.dims if dim in analysis.coords}
        return xr.DataArray(self.function(analysis), coords, self.dims, attrs=self.attrs)


DERIVED: dict[str, Derived] = {}


def derived(
    *sources: str, dims: tuple[str, ...] = ("step", "layer"), **known: Any
) -> Callable[[Function], Callable[[xr.Dataset], xr.DataArray]]:
    """Register a derived measure in `DERIVED` under the function's name; the function then returns labelled values.

    The arguments are the attributes of `Derived` and `probes.Measure`.
    """

    def register(function: Function) -> Callable[[xr.Dataset], xr.DataArray]:
        name = function.__name__
        measure = Derived(name=name, sources=sources, dims=dims, function=function, **known)
        enter(DERIVED, "derived measure", name, measure)

        @wraps(function)
        def labelled(analysis: xr.Dataset) -> xr.DataArray:
            return measure(analysis)

        return labelled

    return register


def derive(analysis: xr.Dataset) -> xr.Dataset:
    """Return an analysis with every measure of `DERIVED` whose sources it holds.

    Examples
    --------
    >>> norms = ("step", "layer"), np.array([[2.0, 0.5]])
    >>> layers = {"step": [0], "layer": ["fc1", "fc2"], "carries_error": ("layer", [False, True])}
    >>> derive(xr.Dataset({"norm_ratio": norms}, layers)).log_norm_ratio_sum.values.round(3)
    array([-0.693])
    """
    possible = (each for each in DERIVED.values() if all(source in analysis for source in each.sources))
    return analysis.assign({each.name: each(analysis) for each in possible})


@derived(
    "weight_gain",
    "forward_norm",
    units="1",
    long_name="elasticity of the feedback's gain in the norm of the forward weights",
    equation="d log |⟨B, W⟩ / ⟨W, W⟩| / d log ‖W‖",
    reference="wtdiag: least squares over the snapshots up to the step",
    subject="feedback",
    bounds=(-math.inf, math.inf),
    neutral=0,
)
def gain_elasticity(analysis: xr.Dataset) -> Array:
    """Elasticity of the gain of each layer's feedback in the norm of its weights: d log|gain| / d log‖W‖.

    It is the slope of the least-squares line of log|gain| over log‖W‖ through the snapshots up to each step, without
    those where either is zero or not finite. It is NaN with fewer than three snapshots, or if the largest ‖W‖ is less
    than 5 % above the smallest. Above 0, the feedback outgrows the weights that it should match.

    Parameters
    ----------
    analysis
        It holds ``weight_gain`` = ⟨B, W⟩ / ⟨W, W⟩ and ``forward_norm`` = ‖W‖ over (step, layer).

    Returns
    -------
    DataArray
        Over (step, layer); a pure number.

    Examples
    --------
    >>> norm = xr.DataArray([[1.0], [2.0], [4.0]], dims=("step", "layer"))
    >>> gain_elasticity(xr.Dataset({"forward_norm": norm, "weight_gain": -(norm**2)})).values.ravel()
    array([nan, nan,  2.])
    """
    norm, gain = _values(analysis, "forward_norm"), _values(analysis, "weight_gain")
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = np.log(norm), np.log(np.abs(gain))
    known = np.isfinite(x) & np.isfinite(y)
    slopes = np.full(x.shape, np.nan)
    for layer in range(x.shape[1]):
        for step in range(x.shape[0]):
            there = known[: step + 1, layer]
            a, b = x[: step + 1, layer][there], y[: step + 1, layer][there]
            if len(a) >= 3 and np.ptp(a) >= np.log1p(MOVED):
                a = a - a.mean()
                slopes[step, layer] = a @ (b - b.mean()) / (a @ a)
    return slopes


@derived(
    "step_size_number",
    units="1",
    long_name="growth of the step-size number since the first snapshot",
    equation="S(t) / S(0)",
    reference="wtdiag: activations and weights that grow bring a stable step to its limit",
    subject="feedback",
    neutral=1,
    scale="log",
)
def step_size_growth(analysis: xr.Dataset) -> Array:
    """Growth of the step-size number of each layer: S over its first finite and positive value.

    Parameters
    ----------
    analysis
        It holds ``step_size_number`` over (step, layer).

    Returns
    -------
    DataArray
        Over (step, layer); a pure number, NaN where there is no earlier value.

    Examples
    --------
    >>> numbers = xr.DataArray([[0.0, 0.5], [0.2, 1.0], [0.6, 0.5]], dims=("step", "layer"))
    >>> step_size_growth(xr.Dataset({"step_size_number": numbers})).values
    array([[nan,  1.],
           [ 1.,  2.],
           [ 3.,  1.]])
    """
    number = _values(analysis, "step_size_number")
    usable = np.isfinite(number) & (number > 0)
    first = np.where(usable.any(axis=0), np.take_along_axis(number, usable.argmax(axis=0)[None], axis=0)[0], np.nan)
    begun = np.maximum.accumulate(usable, axis=0)
    return np.asarray(np.where(begun, number / first, np.nan))


@derived(
    "norm_ratio",
    dims=("step",),
    units="1",
    long_name="sum of the logarithms of the norm ratios of all layers that carry error",
    equation="Σ log(‖B‖ / ‖W‖)",
    reference="wtdiag: the factors by which layers scale the error multiply over depth",
    subject="feedback",
    bounds=(-math.inf, math.inf),
    neutral=0,
)
def log_norm_ratio_sum(analysis: xr.Dataset) -> Array:
    """Sum of the logarithms of the norm ratios of all layers: Σ log(‖B‖ / ‖W‖).

    The sum is over the layers that carry error through a B of W's shape. It shows what no angle does: above 0, errors
    grow on their way down, and below 0 they vanish. It is NaN if one of these layers has no value at the step or there
    is no such layer, and −∞ if a norm ratio is zero.

    Parameters
    ----------
    analysis
        It holds ``norm_ratio`` over (step, layer) and the coordinates of `diagnostics.analysis.analyze`.

    Returns
    -------
    DataArray
        Over step; a pure number.

    Examples
    --------
    >>> log_norm_ratio_sum(xr.Dataset({"norm_ratio": (("step", "layer"), np.array([[2.0, 0.5]]))})).values
    array([0.])
    """
    there = carrying(analysis) & ~flag(analysis, "direct")
    with np.errstate(divide="ignore"):
        logs = np.log(_values(analysis, "norm_ratio")[:, there])
    return logs.sum(axis=1) if there.any() else np.full(len(logs), np.nan)


@derived(
    "error_angle_local",
    units="degree",
    long_name="error angle that the local angles of the layers above would produce by themselves",
    equation="arccos Π cos ∠(Bᵀδ, Wᵀδ)",
    reference="wtdiag: the product law over the layers above",
    subject="signal",
    bounds=(0, 180),
    neutral=90,
)
def error_angle_product(analysis: xr.Dataset) -> Array:
    """Error angle predicted from the local angles of the layers above: arccos Π cos(local angle).

    At layer l, the product is over the layers above it, in forward order, that carry error, as if what each layer adds
    were perpendicular to what it receives. At the last layer the angle is 0°. Compare it with ``error_angle``. If the
    error has several ways down, as around a residual block, forward order is an approximation. The angle is NaN below
    a layer without a local angle, and below direct feedback, through which no error passes from layer to layer.

    Parameters
    ----------
    analysis
        It holds ``error_angle_local`` over (step, layer) and the coordinates of `diagnostics.analysis.analyze`.

    Returns
    -------
    DataArray
        Over (step, layer), in degrees.

    Examples
    --------
    >>> local = ("step", "layer"), np.array([[np.nan, 60.0, 60.0]])
    >>> ds = xr.Dataset({"error_angle_local": local}, {"carries_error": ("layer", [False, True, True])})
    >>> error_angle_product(ds).values.round(2)
    array([[75.52, 60.  ,  0.  ]])
    """
    carries, direct = carrying(analysis), flag(analysis, "direct")
    cosines = np.cos(np.radians(_values(analysis, "error_angle_local")))
    cosines[:, ~carries] = 1.0
    cosines[:, direct] = np.nan
    above = np.ones_like(cosines)
    above[:, :-1] = np.cumprod(cosines[:, :0:-1], axis=1)[:, ::-1]
    return np.asarray(np.degrees(np.arccos(np.clip(above, -1.0, 1.0))))


def _values(analysis: xr.Dataset, name: str) -> Array:
    return np.array(analysis[name].transpose("step", "layer").values, dtype=np.float64)
