"""Norms of the layer's whole operation: how much it can stretch an input or an error.

The kernel of a convolution, unfolded to a matrix, describes what happens to one patch. On a feature map patches
overlap, so the operator from map to map has another norm.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.lanczos import largest
from wtdiag.probes.measures.spectra.singular_values import Spectrum
from wtdiag.probes.registry import declare, probe

Array = NDArray[Any]

declare(operator="the layer's linear operation at its real map size, an `Operator`")


class Operator(Protocol):
    """The linear operation of a layer with any W-shaped matrix as weight; a leading axis counts the examples."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the input of one example."""

    def apply(self, weight: Array, x: Array) -> Array:
        """Return W x."""

    def adjoint(self, weight: Array, y: Array) -> Array:
        """Return Wᵀ y."""


def _norm(weight: Array, spectrum: Spectrum, operator: Operator) -> float:
    size = float(np.max(np.abs(weight), initial=0.0))
    if weight.ndim == 2 or not 0 < size < math.inf:
        return float(spectrum.values[0]) if spectrum.values.size else math.nan
    exponent = math.frexp(size)[1]
    scaled = np.ldexp(weight, -exponent)  # keeps squares in range
    start = np.random.default_rng(0).normal(size=(1, *operator.shape))

    def square(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return operator.adjoint(scaled, operator.apply(scaled, x.astype(weight.dtype))).astype(np.float64)

    value = math.sqrt(max(largest(square, start), 0.0))
    with np.errstate(all="ignore"):
        return float(np.ldexp(value, exponent))


_EQUATION = "max ‖{} x‖ / ‖x‖ over inputs x of the layer's real size"
_REFERENCE = "Sedghi, Gupta and Long 2019, arXiv:1805.10408; by Lanczos iteration on the layer's own operation"


@probe(
    units="1",
    long_name="spectral norm of the forward weights as an operator between feature maps",
    equation=_EQUATION.format("W"),
    reference=_REFERENCE,
    subject="forward",
    scale="log",
    homogeneity=1,
)
def forward_operator_norm(forward: Array, forward_spectrum: Spectrum, operator: Operator) -> float:
    """Largest factor by which W stretches an input; for a dense layer, its spectral norm.

    For a convolution it is accurate to about 1e-4, from below, or to 1e-3 if other singular values are that close.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_operator_norm"](forward=np.diag([3.0, -4.0]), operator=None)
    4.0
    """
    return _norm(forward, forward_spectrum, operator)


@probe(
    units="1",
    long_name="spectral norm of the feedback weights as an operator between feature maps",
    equation=_EQUATION.format("B"),
    reference=_REFERENCE,
    subject="feedback",
    scale="log",
    homogeneity=1,
)
def feedback_operator_norm(
    feedback: Array, feedback_spectrum: Spectrum, operator: Operator, direct: bool = False
) -> float:
    """Largest factor by which Bᵀ stretches an error; NaN if B brings the error straight from the output.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["feedback_operator_norm"](feedback=np.diag([3.0, -4.0]), operator=None)
    4.0
    """
    return math.nan if direct else _norm(feedback, feedback_spectrum, operator)
