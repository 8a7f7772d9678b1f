"""Whether two batches agree on how to change a layer's weights: a direction of credit that holds beyond one batch.

``half_gradient`` and ``other_half_gradient`` are the task's gradients of W from two halves of the probe batch, each of
which passes the network by itself, as two batches of training would; with batch norm the halves would otherwise share
their statistics, and the error of one would be minus that of the other.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from wtdiag.probes.kernels.comparison import Comparison, compare
from wtdiag.probes.kernels.nulls import error_angle_null
from wtdiag.probes.registry import declare, probe, shared

Array = NDArray[Any]

_SOURCE = "McCandlish et al. 2018, arXiv:1812.06162, on the noise of gradients; arXiv:2606.21126"

declare(
    half_gradient="the task's gradient of W from every other example of the batch, under the rule",
    other_half_gradient="the task's gradient of W from the remaining examples, under the rule",
    half_gradient_exact="the task's gradient of W from every other example, under exact backpropagation",
    other_half_gradient_exact="the task's gradient of W from the remaining examples, under exact backpropagation",
)


@shared
def halves_comparison(half_gradient: Array, other_half_gradient: Array) -> Comparison:
    """Comparison of the gradients of two halves of the batch under the rule."""
    return compare(half_gradient, other_half_gradient)


@shared
def exact_halves_comparison(half_gradient_exact: Array, other_half_gradient_exact: Array) -> Comparison:
    """Comparison of the gradients of two halves of the batch under exact backpropagation."""
    return compare(half_gradient_exact, other_half_gradient_exact)


@probe(
    units="degree",
    long_name="angle between the weight gradients of two halves of the batch",
    equation="∠(∂W₁, ∂W₂)",
    reference=_SOURCE,
    null=lambda half_gradient, other_half_gradient, halves_comparison, transposed=False: error_angle_null(
        half_gradient, other_half_gradient, halves_comparison, 1 if transposed else 0
    ),
    subject="signal",
    bounds=(0, 180),
    neutral=90,
)
def credit_angle(halves_comparison: Comparison) -> float:
    """Angle between the gradients of W that two halves of the batch give: 0° if they agree, 90° if by chance only.

    Near the end of training the examples that are still wrong have little in common under any rule, so it is to be held
    against `credit_angle_exact`. By chance: the gradient of each output unit has a random sign.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> halves = {"half_gradient": np.array([[1.0, 1.0]]), "other_half_gradient": np.array([[2.0, 0.0]])}
    >>> round(PROBES["credit_angle"](**halves), 6)
    45.0
    """
    return halves_comparison.angle


@probe(
    units="degree",
    long_name="angle between the exact weight gradients of two halves of the batch",
    equation="∠(∂W*₁, ∂W*₂)",
    reference=_SOURCE,
    null=lambda half_gradient_exact, other_half_gradient_exact, exact_halves_comparison, transposed=False: (
        error_angle_null(
            half_gradient_exact, other_half_gradient_exact, exact_halves_comparison, 1 if transposed else 0
        )
    ),
    subject="signal",
    bounds=(0, 180),
    neutral=90,
    label="exact credit angle",
)
def credit_angle_exact(exact_halves_comparison: Comparison) -> float:
    """Angle between the gradients that the halves of the batch give under exact backpropagation; see `credit_angle`.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> halves = {"half_gradient_exact": np.array([[1.0, 1.0]]), "other_half_gradient_exact": np.array([[2.0, 0.0]])}
    >>> round(PROBES["credit_angle_exact"](**halves), 6)
    45.0
    """
    return exact_halves_comparison.angle
