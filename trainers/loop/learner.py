"""The optimiser step of any rule: which weights move, by how much, and with what noise."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wtdiag.probes.records.optimizers import OPTIMIZERS
from wtdiag.trainers.config.schedules import learning_rate
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import feedback_parameters, learners, synapses
from wtdiag.trainers.layers.direct_points import learned_at_points
from wtdiag.trainers.layers.same_update import unwatch_updates
from wtdiag.trainers.layers.synaptic import Synaptic
from wtdiag.trainers.loop.distributed import Ranks
from wtdiag.trainers.loop.guard import StepGuard
from wtdiag.trainers.loop.optimizer_classes import Group, build
from wtdiag.trainers.rules import Rule

Phase = Literal["both", "task", "feedback"]


class Learner:
    """The optimisers of a network: forward weights descend the task's gradient, learned feedback weights their own.

    Parameters
    ----------
    model
        A converted network.
    settings
        Optimisers, learning rates, phases and noise.
    total, epoch
        Steps of the run and of an epoch.
    ranks
        This process among those that train the run; by default it is alone.
    """

    def __init__(
        self, model: nn.Module, settings: Settings, *, total: int, epoch: int, ranks: Ranks | None = None
    ) -> None:
        self.settings, self.total, self.epoch = settings, total, epoch
        layers = [layer for _, layer in synapses(model)]
        self.weights = _unique(layer.weight for layer in layers)
        learned = _unique([p for layer in layers for p in _learned(layer)] + learned_at_points(model))
        feedback = feedback_parameters(model)
        self.forward = [p for name, p in model.named_parameters() if name not in feedback and p.requires_grad]
        self.feedback = learned
        self._feedback_of = {layer.weight: p for layer in layers for p in _learned(layer)[-1:]}
        self._shared = {_learned(layer)[-1]: layer for layer in layers if "weight_grad" in layer.rule.shares}
        rule = learners(model)[0][1].rule
        default = rule.recipe.convolutional_lr if _is_convolutional(model) else rule.recipe.forward_lr
        self.lr = _given(settings.lr, OPTIMIZERS[settings.optimizer].lr, default)
        for layer in layers if settings.update_noise or settings.relative_noise else ():
            unwatch_updates(layer)
        kind = settings.feedback_optimizer or rule.recipe.optimizer
        self._together = together = learned if kind == "forward" else []
        self._delay = round(settings.delay * epoch)
        self._pretraining, _ = settings.steps(epoch)
        # Only matrices decay. B decays likewise under the same optimiser, or Kolen-Pollack would not contract.
        # A left factor, which has no W beside it, does not.
        lefts = {id(getattr(layer, "feedback_left", None)) for layer in layers}
        matrices = [p for p in self.forward if p.dim() > 1] + [p for p in together if id(p) not in lefts]
        vectors = [p for p in self.forward if p.dim() <= 1] + [p for p in together if id(p) in lefts]
        # In a delay W stands still while the B beside it moves. Then only some parameters have a momentum, which the
        # fused SGD cannot take.
        fused = not (together and self._delay)
        of_sgd = {"momentum": settings.momentum, "nesterov": settings.nesterov, "fused": fused}
        self.optimizers = self._of_forward(matrices, vectors, **of_sgd)
        self.feedback_lr: float | None = None
        self.feedback_kind = settings.optimizer if kind == "forward" else kind
        momentum = settings.feedback_momentum
        nesterov = settings.nesterov and momentum > 0
        if learned and not together:
            self.feedback_lr = _given(settings.feedback_lr, OPTIMIZERS[kind].lr, rule.recipe.lr)
            group = [{"params": learned, "weight_decay": 0.0}]
            self.optimizers["feedback"] = build(kind, group, momentum=momentum, nesterov=nesterov, fused=True)
        self.guard = StepGuard(model, momentum, nesterov=nesterov, ranks=ranks) if settings.s_guard else None

    def _of_forward(
        self, matrices: list[Tensor], vectors: list[Tensor], **of_sgd: Any
    ) -> dict[str, torch.optim.Optimizer]:
        """Return the optimisers of the forward weights, and of feedback that takes their steps, by name."""
        kind, decay = self.settings.optimizer, self.settings.weight_decay
        if kind != "muon":
            return {"forward": build(kind, _groups(matrices, vectors, decay), **of_sgd)}
        # An embedding is a list of vectors, and its gradient has few rows: not for Muon.
        own = {id(p) for p in (*self.weights, *self._together)}
        taken, rest = ([p for p in matrices if (id(p) in own) == mine] for mine in (True, False))
        muon = build(kind, _groups(taken, [], decay))
        return {"forward": muon, "others": build("adamw", _groups(rest, vectors, decay))}

    def phase(self, step: int) -> Phase:
        """Return which weights learn in the step from ``step`` to ``step + 1``."""
        if step < self._delay:
            return "feedback"
        if self.settings.alternate:
            return "feedback" if (step + 1) % (self.settings.alternate + 1) == 0 else "task"
        return "both"

    def rates(self, step: int) -> tuple[float, float | None]:
        """Return the learning rates of forward and of learned feedback weights."""
        settings = self.settings
        warmup = round(settings.warmup * self.epoch)
        before = self._delay + self._pretraining  # of which one is zero: only learned feedback can be delayed
        at, total = max(0, step - before), self.total - before
        forward = self.lr * learning_rate(settings.schedule, at, total=total, warmup=warmup)
        if step < self._pretraining:
            forward = self.lr
        return forward, self.feedback_lr if "feedback" in self.optimizers else (forward if self.feedback else None)

    def rule_at(self, step: int) -> Rule:
        """Return the rule with this step's coefficients."""
        return self.settings.rule_at(step / max(1, self.total), step / self.epoch)

    def begin(self, step: int) -> None:
        """Prepare for the backward pass: clear gradients, and turn off those of feedback weights that do not learn."""
        for parameter in self.forward + self.feedback:
            parameter.grad = None
        if self.settings.alternate or self.settings.delay:
            for feedback in self.feedback:
                # Feedback that shares the forward weights' steps takes part in all of them.
                feedback.requires_grad_(self.phase(step) != "task" or feedback in self._shared)
        if self.guard:
            self.guard.begin(step)

    def step(self, step: int) -> None:
        """Move the weights after the backward pass."""
        phase, (lr, feedback_lr) = self.phase(step), self.rates(step)
        if self.guard and feedback_lr is not None:
            self.guard.shorten(feedback_lr)
        if phase == "feedback":
            for feedback, layer in self._shared.items():
                # W does not move, so of the shared update only the decay of W − B is left
                if layer.weight.grad is not None:
                    feedback.grad -= layer.shared_update(layer.weight.grad)  # type: ignore[operator]
            for parameter in self.forward:
                parameter.grad = None  # an optimiser skips parameters without a gradient
        elif self.settings.clip_norm is not None:
            self._clip(self.settings.clip_norm)
        before = [weight.detach().clone() for weight in self.weights] if self.settings.relative_noise else []
        for name, optimizer in self.optimizers.items():
            rate = feedback_lr if name == "feedback" else lr
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        if self.settings.update_noise:
            self._noise(phase, lr, feedback_lr)
        if self.settings.relative_noise:
            self._relative_noise(before, self.settings.relative_noise)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimisers and of the guard, which is the whole state."""
        state = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return state | ({"guard": self.guard.state_dict()} if self.guard else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        if self.guard:
            self.guard.load_state_dict(state["guard"])

    def _clip(self, most: float) -> None:
        norm = nn.utils.get_total_norm([p.grad for p in self.forward if p.grad is not None])
        # Feedback under the forward weights' optimiser is scaled like them, or Kolen-Pollack would not contract.
        nn.utils.clip_grads_with_norm_(self.forward + self._together, most, norm)

    @torch.no_grad()
    def _relative_noise(self, before: list[Tensor], share: float) -> None:
        """Add noise whose deviation is a share of the root mean square of the update that W of the layer has taken.

        B gets noise of the same size as W, so it does not depend on how B's rate and its coefficients share the work.
        """
        for weight, old in zip(self.weights, before, strict=True):
            size = share * (weight - old).square().mean().sqrt()
            for parameter in (weight, self._feedback_of.get(weight)):
                if parameter is not None and (
                    self.settings.noise_on in ("both", "forward" if parameter is weight else "feedback")
                ):
                    parameter.add_(torch.randn_like(parameter).mul_(size))

    @torch.no_grad()
    def _noise(self, phase: Phase, lr: float, feedback_lr: float | None) -> None:
        noisy = []
        if self.settings.noise_on != "feedback" and phase != "feedback":
            noisy += [(p, lr) for p in self.weights]
        if self.settings.noise_on != "forward" and phase != "task" and feedback_lr is not None:
            noisy += [(p, feedback_lr) for p in self.feedback]
        for parameter, rate in noisy:
            parameter.add_(torch.randn_like(parameter), alpha=rate * self.settings.update_noise)


def _is_convolutional(model: nn.Module) -> bool:
    """Return whether most weights are those of convolutions, and batch norm keeps their activations in range."""
    sizes = {layer.weight: layer.weight.numel() for _, layer in synapses(model)}
    convolved = sum(size for weight, size in sizes.items() if weight.dim() > 2)
    normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    return normalised and 2 * convolved > sum(sizes.values())


def _given(*values: float | None) -> float:
    """Return the first of the values that is one."""
    return next(value for value in values if value is not None)


def _groups(matrices: list[Tensor], vectors: list[Tensor], weight_decay: float) -> list[Group]:
    """Return the groups of an optimiser: matrices, which decay, and vectors, which do not."""
    groups: list[Group] = [{"params": matrices, "weight_decay": weight_decay}]
    return groups + ([{"params": vectors, "weight_decay": 0.0}] if vectors else [])


def _learned(layer: Synaptic) -> list[Tensor]:
    """Return the feedback weights of a layer that learn; of two factors, the right one comes last."""
    return [p for p in layer.parameters_of("feedback") if p.requires_grad] if layer.rule.learned else []


def _unique(tensors: Any) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
