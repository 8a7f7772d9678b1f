"""Direct Kolen-Pollack: direct feedback whose projections learn from the output's error and the layers' activities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import Recipe, choice, number, register
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.local import add_scaled

if TYPE_CHECKING:
    from torch import Tensor


@register
@dataclass(frozen=True, kw_only=True)
class DirectKolenPollack(Direct):
    """Direct Kolen-Pollack: the error e at the network's output and the activity x that B reaches form B's update.

    In the last layer that is the update of W, so that B and W come together there as under Kolen-Pollack. Below, B
    learns as if it were the weights of a layer from x straight to the output. That depends on the whole network above,
    so no resting point and no step-size number are computed for it. The decay is B's alone and may follow a schedule,
    as any coefficient may. Its default, and that B takes W's optimiser and rate, are our choice, and so is the mean
    over the positions of a map: with the sum, convolutional networks diverge at their default rate, as B outgrows W.

    With ``--points`` in ``--model transformer`` train by ``--optimizer adam --lr 0.003``: under SGD it diverges there.
    """

    name = "dkp"
    title = "Direct Kolen-Pollack"
    equation = "dx = Bᵀ e, e = ∂L/∂output, ∂B = e xᵀ / positions + decay · B, B ~ N(0, scale² / classes) at first"
    flops = "2/3 + 2*c*i / (3*w)"
    reference = "“Learning the Connections in Direct Feedback Alignment”, 2020, OpenReview zgGmAx9ZcY"
    learned = True
    shares = frozenset({"error"})
    recipe = Recipe(optimizer="forward")

    decay: float = number(0.01, about="∂B has the term decay · B; W does not decay")
    reduction: str = choice(
        "mean",
        "mean",
        "sum",
        about="over the positions of a map; with the sum, B moves the faster the larger maps are",
        before="sum",
    )

    def projection_grad(self, signal: Tensor, x: Tensor, feedback: Tensor) -> Tensor:
        product = (signal.to(x.dtype).t() @ x.flatten(1)).view(feedback.shape)
        positions = math.prod(feedback.shape[2:]) if self.reduction == "mean" else 1
        return add_scaled(product.to(feedback.dtype).div_(positions), feedback, self.decay)
