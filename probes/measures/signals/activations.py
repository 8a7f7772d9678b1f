"""The input of a layer, and the share of its units that no error reaches.

``inputs`` holds the layer's inputs on the probe batch; its first axis counts the examples. ``units`` is the axis of
features or channels, and all other axes are samples, that is, examples and positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.moments import root_mean_square, second_moments
from wtdiag.probes.registry import declare, probe, shared

Array = NDArray[Any]

declare(inputs="input of the layer; the first axis counts the examples")


@shared
def activation_moments(inputs: Array, units: int = 1) -> NDArray[np.float64]:
    """Eigenvalues of the inputs' second moments that can differ from zero, descending; NaN unless all are finite."""
    return second_moments(inputs, units)


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
    return root_mean_square(inputs)


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
