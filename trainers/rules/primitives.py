"""Five primitives, each defined by its gradient for B; the rules of Kunin et al. are sums of them.

========= ========================== ===================== =======
primitive gradient for B             loss that it descends local
========= ========================== ===================== =======
decay     B                          ½‖B‖²                 yes
amp       −E[outer(x, y)]            −E[xᵀ Bᵀ y]           yes
null      E[outer(Bᵀy, y)]           ½ E‖Bᵀ y‖²            yes
sparse    E[outer(x, B x)]           ½ E‖B x‖²             no
self      −W                         −tr(BᵀW)              no
========= ========================== ===================== =======

x and y = W x (without bias) are detached. E is the mean over the batch and, with ``reduction="mean"``, over the
positions at which a convolution uses its weights. The code of the paper has no ½, so its coefficients of decay, null
and sparse are half of these.

References
----------
Kunin et al. 2020, "Two routes to scalable credit assignment without weight symmetry", ICML, arXiv:2003.01513.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wtdiag.trainers.rules.base import number
from wtdiag.trainers.rules.local import Local, add_scaled

if TYPE_CHECKING:
    from torch import Tensor

Term = Callable[[Local], "Tensor"]


@dataclass(frozen=True)
class Primitive:
    """One term of B's gradient, as a function of the local quantities for each place at which it can enter.

    ``matrix`` is added to B's gradient as it is, ``input`` as outer(term, y) and ``output`` as outer(x, term). Such a
    product costs as much as the layer's own weight gradient, so the terms of one place are summed before it is formed,
    and a primitive that can enter at either end enters where a product is needed anyway. ``pulls`` says that the term
    does not depend on B: in ∂B = H B − T it is a part of T, which moves the fixed point, and not of H. ``loss`` is what
    it descends, summed over the batch.
    """

    formula: str
    loss: Term
    reads: frozenset[str]
    sign: float = 1.0
    matrix: Term | None = None
    input: Term | None = None
    output: Term | None = None
    pulls: bool = False


PRIMITIVES: dict[str, Primitive] = {
    "amp": Primitive(
        "− amp · E[y xᵀ]",
        lambda s: -(s.x * s.adjoint(s.y)).sum(),
        frozenset({"output"}),
        sign=-1.0,
        input=lambda s: s.x,
        output=lambda s: s.y,
        pulls=True,
    ),
    "null": Primitive(
        "+ null · E[y yᵀ] B",
        lambda s: s.adjoint(s.y).square().sum() / 2,
        frozenset({"output"}),
        input=lambda s: s.adjoint(s.y),
    ),
    "decay": Primitive(
        "+ decay · B", lambda s: s.feedback.square().sum() / 2, frozenset(), matrix=lambda s: s.feedback
    ),
    "sparse": Primitive(
        "+ sparse · B E[x xᵀ]",
        lambda s: s.apply(s.x).square().sum() / 2,
        frozenset(),
        output=lambda s: s.apply(s.x),
    ),
    "self": Primitive(
        "− self · W",
        lambda s: -(s.feedback * s.weight).sum(),
        frozenset({"weight"}),
        sign=-1.0,
        matrix=lambda s: s.weight,
        pulls=True,
    ),
}


def term(name: str, default: float) -> Any:
    """Declare the field of a rule that is the coefficient of a primitive."""
    return number(default, about=f"∂B has the term {PRIMITIVES[name].formula.removeprefix('+ ')}")


def gradient(s: Local, coefficients: Mapping[str, float], *, reduction: str) -> Tensor:
    """Return the gradient for B of a sum of primitives, Σ coefficient · primitive, in B's shape.

    Parameters
    ----------
    s
        The local quantities of the layer.
    coefficients
        Coefficient of each primitive by its name; one of zero costs nothing.
    reduction
        "mean" or "sum" over the positions of a convolution or a sequence.
    """
    active = {PRIMITIVES[name]: value for name, value in coefficients.items() if value}
    if not active:
        return s.feedback.new_zeros(s.feedback.shape)
    needed = "input" if any(p.input and not p.output for p in active) else "output"
    ends: dict[str, list[tuple[float, Tensor]]] = {"input": [], "output": []}
    matrices: list[tuple[float, Tensor]] = []
    for primitive, value in active.items():
        if primitive.matrix:
            matrices.append((primitive.sign * value / s.op.uses, primitive.matrix(s)))
            continue
        end = needed if primitive.input and primitive.output else "input" if primitive.input else "output"
        term: Term = getattr(primitive, end)
        ends[end].append((primitive.sign * value / s.examples(reduction), term(s)))
    products = [(_weighted_sum(ends["input"]), s.y)] if ends["input"] else []
    products += [(s.x, _weighted_sum(ends["output"]))] if ends["output"] else []
    total = None
    for x, y in products:
        if total is not None:
            total.add_(s.outer(x, y))
        elif matrices:
            scale, matrix = matrices.pop(0)
            total = s.outer_onto(x, y, matrix, scale)
        else:
            total = s.outer(x, y)
    return _weighted_sum(matrices, onto=total)


def loss(s: Local, coefficients: Mapping[str, float], *, reduction: str) -> Tensor:
    """Return what a sum of primitives descends, Σ coefficient · loss, as a function of ``s.feedback``.

    Parameters
    ----------
    s, coefficients, reduction
        As for `gradient`.
    """
    total = s.feedback.new_zeros(())
    for name, value in coefficients.items():
        primitive = PRIMITIVES[name]
        total = total + value * primitive.loss(s) / (1 if primitive.matrix else s.examples(reduction))
    return total


def squares(s: Local, coefficients: Mapping[str, float], *, reduction: str) -> list[tuple[float, Tensor]]:
    """Return pairs (c, t), examples first, with which an example's curvature along B is ⟨B, Hᵢ B⟩ = Σ c ‖tᵢ‖².

    Only the terms that depend on the example are in it: those that are linear in B and enter an outer product.
    """
    divisor = s.positions if reduction == "mean" else 1
    active = [(value / divisor, PRIMITIVES[name]) for name, value in coefficients.items() if value]
    terms = [(value, p.input or p.output) for value, p in active if not p.pulls]
    return [(value, term(s)) for value, term in terms if term is not None]


def _weighted_sum(terms: list[tuple[float, Tensor]], onto: Tensor | None = None) -> Tensor:
    """Return the weighted sum, added to ``onto`` in place if it is given; at most one new tensor outlives the call."""
    total = onto
    for coefficient, term in terms:
        total = term * coefficient if total is None else add_scaled(total, term, coefficient, in_place=True)
    assert total is not None
    return total
