"""Deviation of the error signals of a rule from those of exact backpropagation, on one batch.

Error signals are arrays of equal shape, whose first axis counts the examples; each is compared as one vector. At a
layer y = W x, ``delta`` is the error that arrives at y under the rule, and ``delta_exact`` the one under exact
backpropagation. The layer sends errors on to x: the feedback turns ``delta`` into ``sent``, while Wᵀ turns ``delta``
into ``sent_local`` and ``delta_exact`` into ``sent_exact``. ``units`` is the axis of their features or channels.

Errors below a floor have no angle. These are errors whose root mean square is below the smallest normal number of their
dtype, where rounding has destroyed their direction, and errors whose norms are a factor of 10¹² apart.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.floor import comparable
from wtdiag.probes.kernels.comparison import Comparison, compare
from wtdiag.probes.kernels.nulls import error_angle_null
from wtdiag.probes.registry import declare, probe, shared

Array = NDArray[Any]

_VANISHING = "Bengio, Simard and Frasconi 1994, doi:10.1109/72.279181"

declare(
    delta="error that arrives at the layer's output under the rule",
    delta_exact="error that arrives at the layer's output under exact backpropagation",
    sent="error that the layer's feedback sends on to the layer's input, computed from delta",
    sent_local="error that the transposed W would send on, computed from delta",
    sent_exact="error that the transposed W would send on, computed from delta_exact",
    forward_projection="output of W for the layer's input",
    feedback_projection="output of B for the layer's input",
    units="axis of features or channels",
)


def _compare_errors(first: Array, second: Array) -> Comparison:
    comparison = compare(first, second)
    norms = comparison.first_norm, comparison.second_norm
    tiny = max(
        float(np.finfo(errors.dtype if errors.dtype.kind == "f" else np.float64).tiny) for errors in (first, second)
    )
    above = comparable(*norms, size=first.size, tiny=tiny)
    return comparison if above else dataclasses.replace(comparison, angle=math.nan)


@shared
def error_comparison(delta_exact: Array, delta: Array) -> Comparison:
    """Comparison of the error that trains the layer with the exact one."""
    return _compare_errors(delta_exact, delta)


@shared
def local_comparison(sent_local: Array, sent: Array) -> Comparison:
    """Comparison of the errors that B and W send on for the same arriving error."""
    return _compare_errors(sent_local, sent)


@shared
def inherited_comparison(sent_exact: Array, sent_local: Array) -> Comparison:
    """Comparison of the errors that W sends on for the exact error and for that of the rule."""
    return _compare_errors(sent_exact, sent_local)


@shared
def total_comparison(sent_exact: Array, sent: Array) -> Comparison:
    """Comparison of the error sent on with the exact one."""
    return _compare_errors(sent_exact, sent)


@probe(
    units="degree",
    long_name="angle between the error that trains the layer and that of exact backpropagation",
    equation="∠(δ, δ*)",
    reference="Akrout et al. 2019, arXiv:1904.05391",
    null=lambda delta_exact, delta, error_comparison, units=1: error_angle_null(
        delta_exact, delta, error_comparison, units
    ),
    subject="signal",
    bounds=(0, 180),
    neutral=90,
)
def error_angle(error_comparison: Comparison) -> float:
    """Angle between the errors that arrive at the layer's output under the rule and under exact backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["error_angle"](delta=np.array([[1.0, 1.0]]), delta_exact=np.array([[2.0, 0.0]])), 6)
    45.0
    """
    return error_comparison.angle


@probe(
    units="1",
    long_name="norm of the error that trains the layer",
    equation="‖δ‖",
    reference=_VANISHING,
    subject="signal",
    scale="log",
    homogeneity=1,
)
def error_norm(error_comparison: Comparison) -> float:
    """Norm of the error that arrives at the layer's output, over all examples of the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["error_norm"](delta=np.array([[3.0, 4.0]]), delta_exact=np.array([[2.0, 0.0]]))
    5.0
    """
    return error_comparison.second_norm


@probe(
    units="1",
    long_name="norm of the error that exact backpropagation brings to the layer",
    equation="‖δ*‖",
    reference=_VANISHING,
    subject="signal",
    scale="log",
    homogeneity=1,
    label="exact error norm",
)
def error_norm_exact(error_comparison: Comparison) -> float:
    """Norm of the error that would arrive under exact backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["error_norm_exact"](delta=np.array([[3.0, 4.0]]), delta_exact=np.array([[2.0, 0.0]]))
    2.0
    """
    return error_comparison.first_norm


@probe(
    units="1",
    long_name="norm of the error that trains the layer over that of exact backpropagation",
    equation="‖δ‖ / ‖δ*‖",
    reference="Akrout et al. 2019, arXiv:1904.05391",
    subject="signal",
    neutral=1,
    scale="log",
)
def error_norm_ratio(error_comparison: Comparison) -> float:
    """Norm of the error that arrives under the rule over that of the one under exact backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["error_norm_ratio"](delta=np.array([[3.0, 4.0]]), delta_exact=np.array([[2.0, 0.0]]))
    2.5
    """
    exact = error_comparison.first_norm
    return error_comparison.second_norm / exact if exact else math.nan


@probe(
    units="degree",
    long_name="angle that the layer's own feedback adds to the error sent on",
    equation="∠(Bᵀδ, Wᵀδ)",
    reference="Kunin et al. 2020, arXiv:2003.01513",
    null=lambda sent_local, sent, local_comparison, units=1: error_angle_null(
        sent_local, sent, local_comparison, units
    ),
    subject="feedback",
    bounds=(0, 180),
    neutral=90,
    label="local error angle",
)
def error_angle_local(local_comparison: Comparison) -> float:
    """Angle between Bᵀδ and Wᵀδ, for the same error δ.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["error_angle_local"](sent=np.array([[0.0, 1.0]]), sent_local=np.array([[2.0, 0.0]]))
    90.0
    """
    return local_comparison.angle


@probe(
    units="degree",
    long_name="angle that the error sent on inherits from the layers above",
    equation="∠(Wᵀδ, Wᵀδ*)",
    reference="wtdiag: the part of the total angle that would remain if the feedback of this layer were exact",
    null=lambda sent_exact, sent_local, inherited_comparison, units=1: error_angle_null(
        sent_exact, sent_local, inherited_comparison, units
    ),
    subject="feedback",
    bounds=(0, 180),
    neutral=90,
    label="inherited error angle",
)
def error_angle_inherited(inherited_comparison: Comparison) -> float:
    """Angle between Wᵀδ and Wᵀδ*, for the rule's error δ and the exact error δ*.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["error_angle_inherited"](sent_local=np.array([[0.0, 1.0]]), sent_exact=np.array([[2.0, 0.0]]))
    90.0
    """
    return inherited_comparison.angle


@probe(
    units="degree",
    long_name="angle between the error sent on and that of exact backpropagation",
    equation="∠(Bᵀδ, Wᵀδ*)",
    reference="Akrout et al. 2019, arXiv:1904.05391",
    null=lambda sent_exact, sent, total_comparison, units=1: error_angle_null(
        sent_exact, sent, total_comparison, units
    ),
    subject="feedback",
    bounds=(0, 180),
    neutral=90,
    label="total error angle",
)
def error_angle_total(total_comparison: Comparison) -> float:
    """Angle between the error that the rule sends on and the one that exact backpropagation sends on.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["error_angle_total"](sent=np.array([[0.0, 1.0]]), sent_exact=np.array([[2.0, 0.0]]))
    90.0
    """
    return total_comparison.angle


@shared
def projection_comparison(forward_projection: Array, feedback_projection: Array) -> Comparison:
    """Comparison of the outputs of W and B for the layer's input."""
    return compare(forward_projection, feedback_projection)


@probe(
    units="degree",
    long_name="angle between the outputs of forward and feedback weights for the layer's input",
    equation="∠(W x, B x)",
    reference="Kunin et al. 2020, arXiv:2003.01513",
    null=lambda forward_projection, feedback_projection, projection_comparison, units=1: error_angle_null(
        forward_projection, feedback_projection, projection_comparison, units
    ),
    subject="feedback",
    bounds=(0, 180),
    neutral=90,
)
def projection_angle(projection_comparison: Comparison) -> float:
    """Angle between W x and B x, which is the weight angle in the directions of the layer's activations.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> given = {"forward_projection": np.array([[0.0, 1.0]]), "feedback_projection": np.array([[2.0, 0.0]])}
    >>> PROBES["projection_angle"](**given)
    90.0
    """
    return projection_comparison.angle


@probe(
    units="1",
    long_name="whether an error signal of the layer is below the numerical floor",
    equation="1 if √mean(δ²) < smallest normal number, or if two norms differ by a factor of more than 10¹², else 0",
    reference="wtdiag: a cosine between such vectors has no meaning",
    subject="signal",
    bounds=(0, 1),
)
def below_floor(
    error_comparison: Comparison,
    local_comparison: Comparison | None = None,
    inherited_comparison: Comparison | None = None,
    total_comparison: Comparison | None = None,
) -> float:
    """1.0 if an error that arrives at the layer, or that it sends on, is too small to have an angle, else 0.0.

    NaN if an error is not finite, which the floor does not explain.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["below_floor"](delta=np.array([[1e-30]]), delta_exact=np.array([[1.0]]))
    1.0
    """
    comparisons = (error_comparison, local_comparison, inherited_comparison, total_comparison)
    given = [comparison for comparison in comparisons if comparison is not None]
    if not all(
        comparison.size and math.isfinite(comparison.first_norm + comparison.second_norm) for comparison in given
    ):
        return math.nan
    return float(any(math.isnan(comparison.angle) for comparison in given))
