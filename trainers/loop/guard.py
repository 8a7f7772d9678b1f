"""The guard that shortens feedback steps before they become unstable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.rules import Rule
from wtdiag.trainers.rules.local import Local
from wtdiag.trainers.rules.regularised import Regularised

LARGEST = 0.4
"""The step-size number above which steps are shortened: S can double between two measurements."""
EVERY = 8
"""Steps between two measurements."""
_ITERATIONS = 2  # of the power method in a measurement; they begin where the last ones ended


class StepGuard:
    """The guard of one training: it multiplies the gradient of each B by min(1, 0.4 / S).

    S = η λ / (2(1 + μ)), or η λ (1 + 2μ) / (2(1 + μ)) in Nesterov's form, where λ is the largest eigenvalue of the H of
    one batch, by power iteration in the backward pass of every eighth step. The λ of several uses of a layer are added,
    which is at least that of their sum.

    Parameters
    ----------
    model
        A converted network whose rules are sums of primitives.
    momentum, nesterov
        Momentum of B.
    """

    def __init__(self, model: nn.Module, momentum: float, *, nesterov: bool) -> None:
        self._layers = dict(synapses(model))
        self._limit = 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1.0)
        self._vectors: dict[str, Tensor] = {}
        self._curvatures: dict[str, float] = {}
        self._rules: dict[str, Any] = {}
        self.scale = 1.0
        """The smallest factor of the last step."""

    def begin(self, step: int) -> None:
        """Let the backward pass that follows measure, if it is the turn of this step."""
        self.end()  # an evaluation or an error may have come between
        if step % EVERY:
            return
        for name, layer in self._layers.items():
            if isinstance(layer.rule, Regularised) and layer.feedback.requires_grad:
                self._rules[name] = layer.rule
                self._curvatures[name] = 0.0
                layer.rule = cast(Rule, _Watched(layer.rule, self._measure(name)))

    def end(self) -> None:
        """Stop measuring."""
        for name, rule in self._rules.items():
            self._layers[name].rule = rule
        self._rules.clear()

    @torch.no_grad()
    def shorten(self, lr: float) -> None:
        """Multiply the gradients of all B by their factors."""
        self.end()
        shared: dict[Tensor, float] = {}
        for name, curvature in self._curvatures.items():
            feedback = self._layers[name].feedback
            shared[feedback] = shared.get(feedback, 0.0) + curvature
        self.scale = 1.0
        for feedback, curvature in shared.items():
            number = lr * curvature / self._limit
            factor = 1.0 if number <= LARGEST else LARGEST / number  # NaN, too, is above
            self.scale = min(self.scale, factor)
            if factor != 1 and feedback.grad is not None:
                feedback.grad.mul_(factor)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next steps depend on."""
        return {"vectors": dict(self._vectors), "curvatures": dict(self._curvatures)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises
        ------
        ValueError
            If it does not fit the network.
        """
        for name, vector in state["vectors"].items():
            feedback = self._layers[name].feedback
            if vector.shape != feedback.shape:
                raise ValueError(f"guard: {name} has shape {tuple(vector.shape)}, not {tuple(feedback.shape)}")
            self._vectors[name] = vector.to(feedback)
        self._curvatures = {str(name): float(value) for name, value in state["curvatures"].items()}

    def _measure(self, name: str) -> Callable[[Regularised, Local], None]:
        def measure(rule: Regularised, s: Local) -> None:
            vector = self._vectors.get(name)
            if vector is None:
                drawn = torch.Generator().manual_seed(0)
                vector = torch.randn(s.feedback.shape, generator=drawn, dtype=torch.float32).to(s.feedback)
                vector = vector / vector.norm()
            curvature = 0.0
            for _ in range(_ITERATIONS):
                product = rule.homogeneous.feedback_grad(
                    Local(s.op, s.x, vector, s.positions, y=s.y, weight=s.weight, batch_axis=s.batch_axis)
                )
                curvature = float(product.norm())
                if not 0 < curvature < float("inf"):
                    break
                vector = product / curvature
            self._vectors[name] = vector
            self._curvatures[name] += curvature

        return measure


class _Watched:
    """A rule whose local quantities are shown to the guard when B's gradient is computed."""

    def __init__(self, rule: Regularised, see: Callable[[Regularised, Local], None]) -> None:
        self._rule, self._see = rule, see

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def feedback_grad(self, s: Local) -> Tensor:
        self._see(self._rule, s)
        return self._rule.feedback_grad(s)
