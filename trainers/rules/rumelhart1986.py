"""Backpropagation, the reference: the error travels through the transpose of the forward weights."""

from dataclasses import dataclass

from wtdiag.trainers.rules.base import Rule, register


@register
@dataclass(frozen=True, kw_only=True)
class Backprop(Rule):
    """Backpropagation: B is W itself."""

    name = "bp"
    title = "Backpropagation"
    equation = "dx = Wᵀ dy"
    reference = "Rumelhart, Hinton & Williams 1986, Nature 323"
    flops = "1"
    transports = True
