"""Feedback alignment: a fixed random B suffices, because W comes to align with it."""

from dataclasses import dataclass

from wtdiag.trainers.rules.base import RandomFeedback, register


@register
@dataclass(frozen=True, kw_only=True)
class FeedbackAlignment(RandomFeedback):
    """Feedback alignment. ``scale`` is B's standard deviation in units of the layer's He deviation."""

    name = "fa"
    title = "Feedback alignment"
    equation = "dx = Bᵀ dy, B fixed, B ~ N(0, scale² · 2 / fan-in)"
    reference = "Lillicrap et al. 2016, Nature Communications 7:13276"
