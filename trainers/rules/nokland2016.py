"""Direct feedback alignment: a random projection of the output error to each layer."""

from dataclasses import dataclass

from wtdiag.trainers.rules.base import register
from wtdiag.trainers.rules.direct import Direct


@register
@dataclass(frozen=True, kw_only=True)
class DirectFeedbackAlignment(Direct):
    """Direct feedback alignment.

    With ``--points`` in ``--model transformer``, SGD diverges unless B is small: begin with ``-c scale=0.1``, or train
    by ``--optimizer adam --lr 0.003``.
    """

    name = "dfa"
    title = "Direct feedback alignment"
    equation = "dx = Bᵀ e, e = ∂L/∂output, B fixed, B ~ N(0, scale² / classes)"
    flops = "2/3 + c*i / (3*w)"
    reference = "Nøkland 2016, NeurIPS, arXiv:1609.01596"
