"""Feedback most of whose entries hardly count."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.kinds.base import Sighting, evidence, kind, last_stretch

MOST = 0.9


@kind(
    "sparse-feedback",
    meaning="Most entries of B are tiny beside the largest, so that few units receive an error at all.",
    advice=("Start B at a smaller scale, or let it decay faster, so that what it began with fades.",),
    equation="share of entries with |B_ij| < max |B| / 100",
    reference="an example of wtdiag's documentation",
    needs=("small_entries",),
)
def sparse_feedback(view: View) -> Iterator[Sighting]:
    """Find layers in which more than nine tenths of the entries are small at the end."""
    share = view["small_entries"]
    for layer in view.carrying:
        seen = last_stretch(share[:, layer] > MOST, np.isfinite(share[:, layer]))
        if seen:
            first, last = seen
            yield Sighting(
                layer,
                first,
                last,
                "medium",
                f"{share[last, layer]:.0%} of the feedback of {view.layers[layer]} is small beside its largest entry.",
                (evidence(view, "small_entries", last, layer, ">", MOST),),
            )
