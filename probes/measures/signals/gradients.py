"""The weight gradient, compared with that of exact backpropagation and with the weights themselves.

``weight_gradient`` is the task's gradient of W from the error that reaches the layer under the rule, and
``weight_gradient_exact`` the one from the error of backpropagation. Both have the shape of W.
"""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from wtdiag.probes.kernels.comparison import Comparison, compare
from wtdiag.probes.kernels.nulls import error_angle_null
from wtdiag.probes.registry import declare, probe, shared

Array = NDArray[Any]

declare(
    weight_gradient="the task's gradient of W, from the error that reaches the layer under the rule",
    weight_gradient_exact="the task's gradient of W, from the error of exact backpropagation",
    forward_lr="learning rate of W in the step",
)


@shared
def gradient_comparison(weight_gradient_exact: Array, weight_gradient: Array) -> Comparison:
    """Comparison of the gradient that trains W with the exact one."""
    return compare(weight_gradient_exact, weight_gradient)


@shared
def radial_comparison(forward: Array, weight_gradient_exact: Array) -> Comparison:
    """Comparison of the exact gradient with W itself."""
    return compare(forward, weight_gradient_exact)


@probe(
    units="degree",
    long_name="angle between the weight gradient and that of exact backpropagation",
    equation="∠(∂W, ∂W*)",
    reference="Lillicrap et al. 2014, arXiv:1411.0247",
    null=lambda weight_gradient_exact, weight_gradient, gradient_comparison, transposed=False: error_angle_null(
        weight_gradient_exact, weight_gradient, gradient_comparison, 1 if transposed else 0
    ),
    subject="signal",
    bounds=(0, 180),
    neutral=90,
)
def weight_gradient_angle(gradient_comparison: Comparison) -> float:
    """Angle between the rule's update of W and the steepest descent of the loss.

    By chance: the update of each output unit has a random sign.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> gradients = {"weight_gradient": np.array([[1.0, 1.0]]), "weight_gradient_exact": np.array([[2.0, 0.0]])}
    >>> round(PROBES["weight_gradient_angle"](**gradients), 6)
    45.0
    """
    return gradient_comparison.angle


@probe(
    units="1",
    long_name="cosine between the forward weights and their exact gradient",
    equation="⟨W, ∂W*⟩ / (‖W‖ ‖∂W*‖)",
    reference="Arora, Li and Lyu 2018, arXiv:1812.03981",
    subject="forward",
    bounds=(-1, 1),
)
def radial_cosine(radial_comparison: Comparison) -> float:
    """Cosine between W and its exact gradient: 0 if the loss does not depend on the layer's scale.

    This is so if batch norm follows the layer. Updates then lengthen W, so that each turns it less than the one before.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["radial_cosine"](forward=np.array([[1.0, 0.0]]), weight_gradient_exact=np.array([[-2.0, 0.0]]))
    -1.0
    """
    return math.cos(math.radians(radial_comparison.angle))


@probe(
    units="1",
    long_name="change of the forward weights in one step, relative to their norm",
    equation="η‖∂W‖ / ‖W‖, with momentum η / (1 − μ)",
    reference="Kunin et al. 2020, arXiv:2012.04728",
    subject="forward",
    scale="log",
)
def relative_update(radial_comparison: Comparison, gradient_comparison: Comparison, forward_lr: float) -> float:
    """Relative change of W in one step, in the long run of equal steps; NaN if the learning rate is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> given = {"weight_gradient": np.array([[3.0]]), "weight_gradient_exact": np.array([[1.0]])}
    >>> PROBES["relative_update"](forward=np.array([[6.0]]), forward_lr=0.5, **given)
    0.25
    """
    norm = radial_comparison.first_norm
    return forward_lr * gradient_comparison.second_norm / norm if norm else math.nan
