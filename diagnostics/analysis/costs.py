"""Costs of a layer's feedback, measured by putting exact feedback in its place from the top layer down."""

from __future__ import annotations

import math

from wtdiag.probes import Measure

_REFERENCE = "wtdiag: exact feedback from the top down, one layer at a time"

COSTS = {
    each.name: each
    for each in (
        Measure(
            name="attribution_angle",
            units="degree",
            long_name="angle that the layer's feedback adds to the error angle at the first layer",
            equation="∠(δ, δ*) with W for B in layers > l − ∠(δ, δ*) with W for B in layers ≥ l",
            reference=_REFERENCE,
            subject="feedback",
            bounds=(-180, 180),
        ),
        Measure(
            name="attribution_loss",
            units="1",
            long_name="share of backpropagation's one-step decrease of the loss that the layer's feedback costs",
            equation="(ΔL with W for B in layers ≥ l - ΔL with W for B in layers > l) / ΔL of backpropagation",
            reference=_REFERENCE,
            subject="feedback",
            bounds=(-math.inf, math.inf),
        ),
    )
}
