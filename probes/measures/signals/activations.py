"""The input of a layer, and the share of its units that no error reaches.

``inputs`` holds the layer's inputs on the probe batch; its first axis counts the examples. ``units`` is the axis of
features or channels, and all other axes are samples, that is, examples and positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.registry import declare, probe, shared

Array = NDArray[Any]

_BLOCK = 2**20  # number of entries that are copied to float64 at a time

declare(inputs="input of the layer; the first axis counts the examples")


def _moments(inputs: Array, units: int) -> tuple[NDArray[np.float64], int]:
    """Return the smaller Gram matrix, of features or of samples, over the number of samples and 4^exponent."""
    features = np.moveaxis(inputs, units, -1)
    width = features.shape[-1]
    samples = features.size // width
    exponent = math.frexp(float(np.max(np.abs(inputs))))[1]
    if samples < width:
        rows = np.ldexp(features.reshape(samples, width).astype(np.float64), -exponent)
        return rows @ rows.T / samples, exponent
    gram = np.zeros((width, width))
    step = max(1, _BLOCK * len(inputs) // inputs.size)
    for start in range(0, len(inputs), step):
        rows = np.ldexp(features[start : start + step].reshape(-1, width).astype(np.float64), -exponent)
        gram += rows.T @ rows
    return gram / samples, exponent


@shared
def activation_moments(inputs: Array, units: int = 1) -> NDArray[np.float64]:
    """Eigenvalues of the inputs' second moments that can differ from zero, descending; NaN unless all are finite."""
    if not inputs.size:
        return np.empty(0)
    if not np.isfinite(inputs).all():
        return np.full(min(inputs.shape[units], inputs.size // inputs.shape[units]), math.nan)
    moments, exponent = _moments(inputs, units)
    values = np.maximum(np.linalg.eigvalsh(moments)[::-1], 0.0)
    with np.errstate(all="ignore"):
        return np.asarray(np.ldexp(values, 2 * exponent))


@probe(
    units="1",
    long_name="root mean square of the layer's input",
    equation="√E[x²]",
    reference="LeCun et al. 1998, Efficient BackProp, section 4.3",
    subject="signal",
    scale="log",
    homogeneity=1,
)
def activation_norm(inputs: Array) -> float:
    """Root mean square over all entries of the layer's input.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["activation_norm"](inputs=np.array([[3.0, -3.0], [3.0, 3.0]]))
    3.0
    """
    largest = float(np.max(np.abs(inputs), initial=0.0))
    if not inputs.size or not math.isfinite(largest):
        return math.nan
    exponent = math.frexp(largest)[1]
    squares, step = 0.0, max(1, _BLOCK * len(inputs) // inputs.size)
    for start in range(0, len(inputs), step):
        part = np.ldexp(inputs[start : start + step].astype(np.float64), -exponent)
        squares += float(np.vdot(part, part))
    return math.ldexp(math.sqrt(squares / inputs.size), exponent)


@probe(
    units="1",
    long_name="eigenvalues of the second moments of the layer's input",
    equation="λ(Σ), Σ = E[x xᵀ] over examples and positions, with x the features or channels",
    reference="LeCun, Kanter and Solla 1991, doi:10.1103/PhysRevLett.66.2396",
    dims=("mode",),
    subject="signal",
    scale="log",
    homogeneity=2,
)
def activation_spectrum(activation_moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eigenvalues of Σ, descending: one for each feature, or for each sample if there are fewer samples.

    Rules that learn from activations learn fast along the first eigenvectors and slowly along the last.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["activation_spectrum"](inputs=np.array([[2.0, 0.0], [0.0, 4.0]]))
    array([8., 2.])
    """
    return activation_moments


@probe(
    units="1",
    long_name="participation ratio of the layer's input",
    equation="(Σ λᵢ)² / Σ λᵢ², λ the eigenvalues of E[x xᵀ]",
    reference="Gao et al. 2017, bioRxiv 214262",
    subject="signal",
    bounds=(1, math.inf),
)
def activation_dimension(activation_moments: NDArray[np.float64]) -> float:
    """Effective number of directions over which the input spreads; about 1 if a large mean outweighs everything else.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["activation_dimension"](inputs=np.eye(3)), 12)
    3.0
    """
    if not activation_moments.size or not activation_moments[0] > 0 or math.isinf(activation_moments[0]):
        return math.nan
    shares = activation_moments / activation_moments[0]
    return float(shares.sum() ** 2 / (shares @ shares))


@probe(
    units="1",
    long_name="share of the layer's units that no exact error reaches",
    equation="share of units u with δ*ᵤ = 0 in all examples and positions",
    reference="Lu et al. 2020, arXiv:1903.06733",
    subject="signal",
    bounds=(0, 1),
    entrywise=True,
)
def dead_units(delta_exact: Array, units: int = 1) -> float:
    """Share of the units whose exact error is zero in the whole batch, so that not even backpropagation trains them.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["dead_units"](delta_exact=np.array([[1.0, 0.0], [2.0, 0.0]]))
    0.5
    """
    if not delta_exact.size or not np.isfinite(delta_exact).all():
        return math.nan
    others = tuple(axis for axis in range(delta_exact.ndim) if axis != units % delta_exact.ndim)
    return 1.0 - float(np.mean(delta_exact.any(axis=others)))
