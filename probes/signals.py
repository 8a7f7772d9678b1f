"""How far the error signals of a rule are from those of exact backpropagation, on one batch.

Error signals are arrays of equal shape, examples first, each compared as one vector. At a layer y = W x,
``delta`` is the error arriving at y under the rule and ``delta_exact`` under exact backpropagation. Of the
errors sent on to x, the feedback makes ``sent`` from ``delta``, and Wᵀ makes ``sent_local`` from ``delta``
and ``sent_exact`` from ``delta_exact``. ``units`` is the axis of their features or channels.
"""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from probes.comparison import Comparison, compare
from probes.nulls import error_angle_null
from probes.registry import probe, shared

Array = NDArray[Any]


@shared
def error_comparison(delta_exact: Array, delta: Array) -> Comparison:
    """Compare the error that trains the layer with the exact one."""
    return compare(delta_exact, delta)


@shared
def local_comparison(sent_local: Array, sent: Array) -> Comparison:
    """Compare what B and what W make of the same error."""
    return compare(sent_local, sent)


@shared
def inherited_comparison(sent_exact: Array, sent_local: Array) -> Comparison:
    """Compare what W makes of the exact error and of the rule's."""
    return compare(sent_exact, sent_local)


@shared
def total_comparison(sent_exact: Array, sent: Array) -> Comparison:
    """Compare the error sent on with the exact one."""
    return compare(sent_exact, sent)


@probe(
    units="degree",
    long_name="angle of the error that trains the layer to exact backpropagation's",
    equation="∠(δ, δ*)",
    reference="Akrout et al. 2019, arXiv:1904.05391",
    null=lambda delta_exact, delta, error_comparison, units=1: error_angle_null(
        delta_exact, delta, error_comparison, units
    ),
)
def error_angle(error_comparison: Comparison) -> float:
    """Angle between the errors arriving at the layer's output under the rule and under exact backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> from probes import PROBES
    >>> round(PROBES["error_angle"](delta=np.array([[1.0, 1.0]]), delta_exact=np.array([[2.0, 0.0]])), 6)
    45.0
    """
    return error_comparison.angle


@probe(
    units="1",
    long_name="norm of the error that trains the layer over exact backpropagation's",
    equation="‖δ‖ / ‖δ*‖",
    reference="Akrout et al. 2019, arXiv:1904.05391",
)
def error_norm_ratio(error_comparison: Comparison) -> float:
    """Ratio of the norms of the errors arriving under the rule and under exact backpropagation.

    Examples
    --------
    >>> import numpy as np
    >>> from probes import PROBES
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
)
def error_angle_local(local_comparison: Comparison) -> float:
    """Angle between what the feedback and what Wᵀ make of the same error δ.

    Examples
    --------
    >>> import numpy as np
    >>> from probes import PROBES
    >>> PROBES["error_angle_local"](sent=np.array([[0.0, 1.0]]), sent_local=np.array([[2.0, 0.0]]))
    90.0
    """
    return local_comparison.angle


@probe(
    units="degree",
    long_name="angle that the error sent on inherits from the layers above",
    equation="∠(Wᵀδ, Wᵀδ*)",
    reference="wtdiag: the part of the total angle that exact feedback in this layer would leave",
    null=lambda sent_exact, sent_local, inherited_comparison, units=1: error_angle_null(
        sent_exact, sent_local, inherited_comparison, units
    ),
)
def error_angle_inherited(inherited_comparison: Comparison) -> float:
    """Angle between what Wᵀ makes of the rule's error δ and of the exact error δ*.

    Examples
    --------
    >>> import numpy as np
    >>> from probes import PROBES
    >>> PROBES["error_angle_inherited"](sent_local=np.array([[0.0, 1.0]]), sent_exact=np.array([[2.0, 0.0]]))
    90.0
    """
    return inherited_comparison.angle


@probe(
    units="degree",
    long_name="angle of the error sent on to exact backpropagation's",
    equation="∠(Bᵀδ, Wᵀδ*)",
    reference="Akrout et al. 2019, arXiv:1904.05391",
    null=lambda sent_exact, sent, total_comparison, units=1: error_angle_null(
        sent_exact, sent, total_comparison, units
    ),
)
def error_angle_total(total_comparison: Comparison) -> float:
    """Angle between the error that the rule sends on and the one that exact backpropagation sends on.

    Examples
    --------
    >>> import numpy as np
    >>> from probes import PROBES
    >>> PROBES["error_angle_total"](sent=np.array([[0.0, 1.0]]), sent_exact=np.array([[2.0, 0.0]]))
    90.0
    """
    return total_comparison.angle
