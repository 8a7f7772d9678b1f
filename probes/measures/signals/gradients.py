"""The weight gradient, compared with that of exact backpropagation and with the weights themselves.

``weight_gradient`` is the task's gradient of W from the error that reaches the layer under the rule, and
``weight_gradient_exact`` the one from the error of backpropagation. Both have the shape of W.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.comparison import Comparison, compare
from wtdiag.probes.kernels.nulls import error_angle_null
from wtdiag.probes.registry import declare, probe, shared

Array = NDArray[Any]

declare(
    weight_gradient="the task's gradient of W, from the error that reaches the layer under the rule",
    weight_gradient_exact="the task's gradient of W, from the error of exact backpropagation",
    forward_gradient="the gradient that W descends: the task's, as in `weight_gradient`, and the rule's own term",
    forward_lr="learning rate of W in the step",
    forward_decay="weight decay that the optimiser adds to the gradient of W",
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
    equation="η‖∂W + λW‖ / ‖W‖, with momentum η / (1 − μ); λ is the weight decay of the optimiser",
    reference="Kunin et al. 2020, arXiv:2012.04728",
    subject="forward",
    scale="log",
)
def relative_update(forward: Array, forward_gradient: Array, forward_lr: float, forward_decay: float = 0.0) -> float:
    """Relative change of W in one step, in the long run of equal steps; NaN if the learning rate is not known.

    ∂W is the whole gradient that W descends, with the decay that Kolen-Pollack adds to it, for example.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> given = {"forward": np.array([[6.0]]), "forward_gradient": np.array([[3.0]]), "forward_lr": 0.5}
    >>> PROBES["relative_update"](**given), PROBES["relative_update"](**given, forward_decay=0.5)
    (0.25, 0.5)
    """
    with np.errstate(all="ignore"):
        step = forward_gradient + forward_decay * forward if forward_decay else forward_gradient
        made = compare(forward, step)
    return forward_lr * made.second_norm / made.first_norm if made.first_norm else math.nan
