"""Rules that are sums of primitives, and the general sum with any coefficients."""

from __future__ import annotations

from dataclasses import dataclass

from wtdiag.trainers.rules.base import Recipe, register
from wtdiag.trainers.rules.primitives import term
from wtdiag.trainers.rules.regularised import Regularised

_KUNIN = "Kunin et al. 2020, ICML, arXiv:2003.01513"


@register
@dataclass(frozen=True, kw_only=True)
class RegularisedWeightMirror(Regularised):
    """Weight mirror as a regulariser, on the layer's own activations. Its fixed point is amp / decay · W E[x xᵀ]."""

    name = "wm-reg"
    title = "Weight mirror (regulariser)"
    equation = "∂B = − amp · E[y xᵀ] + decay · B"
    flops = "4/3"
    reference = _KUNIN

    amp: float = term("amp", 0.03)
    decay: float = term("decay", 0.1)


@register
@dataclass(frozen=True, kw_only=True)
class InformationAlignment(Regularised):
    """Information alignment. Its fixed point is amp (null E[y yᵀ] + decay)⁻¹ W E[x xᵀ], whose gain is bounded."""

    name = "ia"
    title = "Information alignment"
    equation = "∂B = − amp · E[y xᵀ] + null · E[y yᵀ] B + decay · B"
    flops = "5/3"
    reference = _KUNIN
    recipe = Recipe(optimizer="adam", lr=0.005)

    amp: float = term("amp", 0.04)
    null: float = term("null", 0.01)
    decay: float = term("decay", 0.0025)


@register
@dataclass(frozen=True, kw_only=True)
class SymmetricAlignment(Regularised):
    """Symmetric alignment, which is not local. Its fixed point is self / decay · W."""

    name = "sa"
    title = "Symmetric alignment"
    equation = "∂B = decay · B − self · W"
    flops = "1"
    reference = _KUNIN

    decay: float = term("decay", 0.2)
    self: float = term("self", 0.2)


@register
@dataclass(frozen=True, kw_only=True)
class ActivationAlignment(Regularised):
    """Activation alignment, which is not local. Its fixed point is amp / sparse · W on the range of E[x xᵀ]."""

    name = "aa"
    title = "Activation alignment"
    equation = "∂B = − amp · E[y xᵀ] + sparse · B E[x xᵀ]"
    flops = "5/3"
    reference = _KUNIN
    # Adam, because plain steps that are stable in directions of large activations barely move B in the others.
    recipe = Recipe(optimizer="adam", lr=0.02)

    amp: float = term("amp", 0.06)
    sparse: float = term("sparse", 0.06)


@register
@dataclass(frozen=True, kw_only=True)
class Sum(Regularised):
    """Any sum of primitives; coefficients that are not given are zero."""

    name = "sum"
    title = "Sum of primitives"
    equation = "∂B = − amp · E[y xᵀ] + null · E[y yᵀ] B + decay · B + sparse · B E[x xᵀ] − self · W"
    reference = _KUNIN

    amp: float = term("amp", 0.0)
    null: float = term("null", 0.0)
    decay: float = term("decay", 0.0)
    sparse: float = term("sparse", 0.0)
    self: float = term("self", 0.0)
