"""The steps of B against the size of its fixed point and against the distance that is left, for SGD and Adam.

Adam divides the mean of its gradients by the root of their mean square. So while the gradient of an entry keeps its
sign the entry moves by the learning rate η in each step, whatever the size of the gradient, and B by η√n. That is the
size of its steps until B is close to its fixed point. There they shrink, as far as the signs of the gradients differ
from step to step.

Examples
--------
Adam moves all four entries of B by 0.2 in a step, and B is on average 1.5 away from 3 in each entry:

>>> from types import SimpleNamespace
>>> from wtdiag.probes import Quantities
>>> adam = {"optimizer": "adam", "momentum": 0.0, "interval": 1, "weight_decay": 0.0}
>>> law = SimpleNamespace(gradient=lambda b: 0.5 * (b - 3), lr=0.2, **adam)
>>> layer = Quantities(forward=np.ones((2, 2)), feedback=np.full((2, 2), 1.5), law=law)
>>> [round(layer[name], 6) for name in ("relative_step", "travel_time")]
[0.066667, 7.5]
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.measures.dynamics.recursion import Drift, FeedbackLaw, Rest
from wtdiag.probes.records.optimizers import theory
from wtdiag.probes.registry import probe

Array = NDArray[Any]

_ADAM = "Kingma and Ba 2015, arXiv:1412.6980, section 2.1, for the size of Adam's steps"


@probe(
    units="1",
    long_name="size of the feedback's step, relative to the norm of its fixed point",
    equation="η√n / ‖B*‖ for Adam, n entries that each move by η; η‖∂B‖ / ((1 − μ)‖B*‖) for SGD",
    reference=_ADAM,
    subject="feedback",
    limit=1,
    scale="log",
)
def relative_step(law: FeedbackLaw, drift: Drift | None, rest: Rest | None, feedback: Array) -> float:
    """Step of B over the size of what it learns: from 1 on, a single step is as large as the fixed point itself.

    For Adam it is the step while gradients keep their signs, which is the usual one far from rest and about the largest
    one. For SGD it is the step at this B, in the long run of equal steps. It is NaN for an unknown learning rate, for a
    fixed point at zero, and for other optimisers.
    """
    known = theory(law.optimizer)
    if drift is None or rest is None or not rest.point.any() or math.isnan(law.lr) or not known:
        return math.nan
    size = float(np.linalg.norm(rest.point))
    if known == "adam":
        return law.lr * math.sqrt(rest.point.size) / size
    with np.errstate(all="ignore"):
        gradient = drift.product(feedback.astype(np.float64)) - drift.target
        return law.lr * float(np.linalg.norm(gradient)) / ((1 - law.momentum) * size)


@probe(
    units="step",
    long_name="steps that Adam takes at least to bring the feedback to its fixed point",
    equation="k · rms(B* − B) / η, with one update in k steps",
    reference=_ADAM,
    subject="feedback",
    scale="log",
)
def travel_time(law: FeedbackLaw, rest: Rest | None, feedback: Array) -> float:
    """Time, in steps, in which Adam covers the distance to the fixed point if each entry moves by η in each update.

    Entries that are further away than the root mean square need longer. It is infinite for a learning rate of zero, and
    NaN for SGD, whose step grows with the distance; see `relaxation_time`. It is not known for other optimisers.
    """
    if rest is None or theory(law.optimizer) != "adam" or math.isnan(law.lr):
        return math.nan
    with np.errstate(all="ignore"):
        apart = float(np.linalg.norm(rest.point - feedback)) / math.sqrt(feedback.size)
    return law.interval * apart / law.lr if law.lr else math.inf
