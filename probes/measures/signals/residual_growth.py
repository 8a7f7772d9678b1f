"""Growth of the hidden signal from block to block."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from wtdiag.probes.kernels.moments import root_mean_square
from wtdiag.probes.registry import declare, probe

Array = NDArray[Any]

declare(
    entering="hidden signal that enters the block which ends in this layer, or the layer if it is in no block",
    leaving="hidden signal that leaves that block, or that enters the next layer",
)


@probe(
    units="1",
    long_name="growth of the hidden signal through the block that ends in the layer",
    equation="rms(h_{l+1}) / rms(h_l)",
    reference="arXiv:2606.21126",
    subject="signal",
    neutral=1,
    scale="log",
)
def residual_growth(entering: Array, leaving: Array) -> float:
    """Root mean square of what leaves the block over that of what enters it; the square root of their power ratio.

    A block is a module with a forward method of its own in a sequence of such, as residual and transformer blocks are;
    its growth stands at its last layer. A layer that is in no block counts with what lies between it and the next one.
    Batch norm inside a block hides a growing stream from every other measure of the layers.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["residual_growth"](entering=np.array([[3.0, 4.0]]), leaving=np.array([[6.0], [-8.0]]))
    2.0
    """
    before, after = root_mean_square(entering), root_mean_square(leaving)
    return after / before if before else math.nan
