"""What follows from the measurements over snapshots and layers: the growth of gains, the sum of angles over depth."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

MOVED = 0.05
"""Smallest relative change of ‖W‖ over which a slope means something."""

Array = NDArray[np.float64]


def derive(analysis: xr.Dataset) -> xr.Dataset:
    """Return an analysis with `gain_elasticity`, `log_gain_sum` and `error_angle_product`, where it has their sources.

    Examples
    --------
    >>> norms = ("step", "layer"), np.array([[2.0, 0.5]])
    >>> layers = {"step": [0], "layer": ["fc1", "fc2"], "carries_error": ("layer", [False, True])}
    >>> derive(xr.Dataset({"norm_ratio": norms}, layers)).log_gain_sum.values.round(3)
    array([-0.693])
    """
    return analysis.assign(
        {
            function.__name__: function(analysis)
            for sources, function in (
                (("weight_gain", "forward_norm"), gain_elasticity),
                (("norm_ratio",), log_gain_sum),
                (("error_angle_local",), error_angle_product),
            )
            if all(name in analysis for name in sources)
        }
    )


def gain_elasticity(analysis: xr.Dataset) -> xr.DataArray:
    """Measure how the gain of each layer's feedback follows the size of its weights: d log|gain| / d log‖W‖.

    The slope of the least-squares line of log|gain| over log‖W‖ through the snapshots up to each step; those where
    either is zero or not finite are passed over. NaN with fewer than three, or where ‖W‖ moved by less than 5 %:
    its largest over its smallest value. Above 0 the feedback outgrows the weights that it should be like.

    Parameters
    ----------
    analysis
        With ``weight_gain`` = ⟨B, W⟩ / ⟨W, W⟩ and ``forward_norm`` = ‖W‖ over (step, layer).

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
    return _measure(
        analysis,
        slopes,
        units="1",
        long_name="elasticity of the feedback's gain in the norm of the forward weights",
        equation="d log |⟨B, W⟩ / ⟨W, W⟩| / d log ‖W‖",
        reference="wtdiag: least squares over the snapshots up to the step",
    )


def log_gain_sum(analysis: xr.Dataset) -> xr.DataArray:
    """Sum the logarithms of the gains of all layers: Σ log(‖B‖ / ‖W‖).

    Over the layers that carry error through a B of W's shape. What no angle shows: above 0 errors grow on their way
    down, below 0 they vanish. NaN where one of these has no value at the step or there are none; -∞ where one is zero.

    Parameters
    ----------
    analysis
        With ``norm_ratio`` over (step, layer) and the coordinates that `diagnostics.analysis.analyze` gives.

    Returns
    -------
    DataArray
        Over step; a pure number.

    Examples
    --------
    >>> log_gain_sum(xr.Dataset({"norm_ratio": (("step", "layer"), np.array([[2.0, 0.5]]))})).values
    array([0.])
    """
    there = _flag(analysis, "carries_error", True) & ~_flag(analysis, "direct", False)
    with np.errstate(divide="ignore"):
        logs = np.log(_values(analysis, "norm_ratio")[:, there])
    total = logs.sum(axis=1) if there.any() else np.full(len(logs), np.nan)
    attrs = {
        "units": "1",
        "long_name": "sum of the logarithms of the norm ratios of all layers that carry error",
        "equation": "Σ log(‖B‖ / ‖W‖)",
        "reference": "wtdiag: gains multiply over depth",
    }
    return xr.DataArray(total, _coords(analysis, "step"), ("step",), attrs=attrs)


def error_angle_product(analysis: xr.Dataset) -> xr.DataArray:
    """Predict the error angle from the local angles of the layers above: arccos Π cos(local angle).

    At layer l the product is over the layers above it in forward order that carry error, as if what each adds were
    perpendicular to what it got; 0° at the last layer. To be held against ``error_angle``. Where the error has
    several ways down, as around a residual block, forward order is an approximation. NaN below a layer without a
    local angle, and below direct feedback, through which no error passes from layer to layer.

    Parameters
    ----------
    analysis
        With ``error_angle_local`` over (step, layer) and the coordinates that `diagnostics.analysis.analyze` gives.

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
    carries, direct = _flag(analysis, "carries_error", True), _flag(analysis, "direct", False)
    cosines = np.cos(np.radians(_values(analysis, "error_angle_local")))
    cosines[:, ~carries] = 1.0
    cosines[:, direct] = np.nan
    above = np.ones_like(cosines)
    above[:, :-1] = np.cumprod(cosines[:, :0:-1], axis=1)[:, ::-1]
    return _measure(
        analysis,
        np.degrees(np.arccos(np.clip(above, -1.0, 1.0))),
        units="degree",
        long_name="error angle that the local angles of the layers above would make by themselves",
        equation="arccos Π cos ∠(Bᵀδ, Wᵀδ)",
        reference="wtdiag: the product law over the layers above",
    )


def _values(analysis: xr.Dataset, name: str) -> Array:
    return np.array(analysis[name].transpose("step", "layer").values, dtype=np.float64)


def _flag(analysis: xr.Dataset, name: str, default: bool) -> NDArray[np.bool_]:
    """One truth per layer; ``default`` where the analysis does not say."""
    if name not in analysis.coords:
        return np.full(analysis.sizes["layer"], default)
    return np.asarray(analysis[name].values).astype(bool)


def _coords(analysis: xr.Dataset, *dims: str) -> dict[str, xr.DataArray]:
    return {dim: analysis[dim] for dim in dims if dim in analysis.coords}


def _measure(analysis: xr.Dataset, values: Array, **attrs: str) -> xr.DataArray:
    return xr.DataArray(values, _coords(analysis, "step", "layer"), ("step", "layer"), attrs=attrs)
