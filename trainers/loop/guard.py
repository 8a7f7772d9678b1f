"""The guard that shortens feedback steps before they become unstable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.loop.distributed import Ranks
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
    ranks
        This process among those that share each batch; by default it is alone.
    """

    def __init__(self, model: nn.Module, momentum: float, *, nesterov: bool, ranks: Ranks | None = None) -> None:
        self._ranks = ranks or Ranks()
        self._layers = dict(synapses(model))
        self._limit = 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1.0)
        self._vectors: dict[str, Tensor] = {}
        self._curvatures: dict[str, Tensor] = {}  # float64, on the device, so that no step waits for them
        self._rules: dict[str, Any] = {}
        self.scale = torch.ones((), dtype=torch.float64)
        """The smallest factor of the last step."""

    def begin(self, step: int) -> None:
        """Let the backward pass that follows measure, if it is the turn of this step."""
        self.end()  # an evaluation or an error may have come between
        if step % EVERY:
            return
        for name, layer in self._layers.items():
            if isinstance(layer.rule, Regularised) and layer.feedback.requires_grad:
                self._rules[name] = layer.rule
                self._curvatures[name] = torch.zeros((), dtype=torch.float64, device=layer.feedback.device)
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
        shared: dict[Tensor, Tensor] = {}
        for name, curvature in self._curvatures.items():
            feedback = self._layers[name].feedback
            shared[feedback] = shared[feedback] + curvature if feedback in shared else curvature
        factors = []
        for feedback, curvature in shared.items():
            number = lr * curvature / self._limit
            # NaN, too, is above. A plain number divided by a tensor would be rounded twice.
            factor = torch.where(number <= LARGEST, 1.0, torch.full_like(number, LARGEST) / number)
            factors.append(factor)
            if feedback.grad is not None:
                feedback.grad.mul_(factor)
        if factors:
            self.scale = torch.stack(factors).min()

    def numbers(self, lr: float) -> dict[str, Tensor]:
        """Return the step-size number of each layer, as last measured, at this learning rate of B."""
        return {name: lr * curvature / self._limit for name, curvature in self._curvatures.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next steps depend on."""
        curvatures = {name: curvature.item() for name, curvature in self._curvatures.items()}
        return {"vectors": dict(self._vectors), "curvatures": curvatures}

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
        self._curvatures = {
            str(name): torch.tensor(float(value), dtype=torch.float64, device=self._layers[name].feedback.device)
            for name, value in state["curvatures"].items()
        }

    def _measure(self, name: str) -> Callable[[Regularised, Local], None]:
        def measure(rule: Regularised, s: Local) -> None:
            vector = self._vectors.get(name)
            if vector is None:
                drawn = torch.Generator().manual_seed(0)
                vector = torch.randn(s.feedback.shape, generator=drawn, dtype=torch.float32).to(s.feedback)
                vector = vector / vector.norm()
            for _ in range(_ITERATIONS):
                own = rule.homogeneous.feedback_grad(
                    Local(s.op, s.x, vector, s.positions, s.y, s.weight, batch_axis=s.batch_axis, bias=s.bias)
                )
                product = self._ranks.mean_within_pass(own)
                norm = product.norm()
                curvature = norm.double()
                # A zero or infinite curvature gives no direction.
                vector = torch.where((norm > 0) & norm.isfinite(), product / norm, vector)
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
