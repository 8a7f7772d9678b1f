"""One optimiser step: who moves, by how much, with what noise. Any rule, two optimisers at most."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from wtdiag.trainers.config.schedules import learning_rate
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import feedback_parameters, synapses
from wtdiag.trainers.rules import Rule

Phase = Literal["both", "task", "feedback"]


class Learner:
    """Moves the forward weights down the task's gradient and learned feedback weights down their own.

    Parameters
    ----------
    model
        A converted network.
    settings
        Optimisers, learning rates, phases and noise.
    total, epoch
        Steps of the run and of an epoch.
    """

    def __init__(self, model: nn.Module, settings: Settings, *, total: int, epoch: int) -> None:
        self.settings, self.total, self.epoch = settings, total, epoch
        layers = [layer for _, layer in synapses(model)]
        self.weights = _unique(layer.weight for layer in layers)
        learned = _unique(layer.feedback for layer in layers if layer.rule.learned)
        feedback = feedback_parameters(model)
        self.forward = [p for name, p in model.named_parameters() if name not in feedback and p.requires_grad]
        self.feedback = learned
        self._shared = {layer.feedback: layer.weight for layer in layers if "weight_grad" in layer.rule.shares}
        rule = layers[0].rule
        kind = settings.feedback_optimizer or rule.recipe.optimizer
        self._together = together = learned if kind == "forward" else []
        self._delay = round(settings.delay * epoch)
        # Weight decay is for matrices. B under the same optimiser decays alike, or Kolen-Pollack would not contract.
        matrices = [p for p in self.forward if p.dim() > 1] + together
        vectors = [p for p in self.forward if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}]
        groups += [{"params": vectors, "weight_decay": 0.0}] if vectors else []
        self.optimizers = {"forward": _build(settings.optimizer, groups, settings, settings.momentum)}
        self.feedback_lr: float | None = None
        if learned and not together:
            self.feedback_lr = rule.recipe.lr if settings.feedback_lr is None else settings.feedback_lr
            group = [{"params": learned, "weight_decay": 0.0}]
            self.optimizers["feedback"] = _build(kind, group, settings, settings.feedback_momentum)

    def phase(self, step: int) -> Phase:
        """Return who learns in the step from ``step`` to ``step + 1``."""
        if step < self._delay:
            return "feedback"
        if self.settings.alternate:
            return "feedback" if (step + 1) % (self.settings.alternate + 1) == 0 else "task"
        return "both"

    def rates(self, step: int) -> tuple[float, float | None]:
        """Return the learning rates of forward and of learned feedback weights."""
        settings = self.settings
        warmup = round(settings.warmup * self.epoch)
        step, total = max(0, step - self._delay), self.total - self._delay
        forward = settings.lr * learning_rate(settings.schedule, step, total=total, warmup=warmup)
        return forward, self.feedback_lr if "feedback" in self.optimizers else (forward if self.feedback else None)

    def rule_at(self, step: int) -> Rule:
        """Return the rule with this step's coefficients."""
        return self.settings.rule_at(step / max(1, self.total), step / self.epoch)

    def begin(self, step: int) -> None:
        """Prepare for the backward pass: clear gradients, and leave out feedback gradients nobody will use."""
        for parameter in self.forward + self.feedback:
            parameter.grad = None
        if self.settings.alternate or self.settings.delay:
            for feedback in self.feedback:
                # Feedback that shares the forward weights' steps takes part in all of them.
                feedback.requires_grad_(self.phase(step) != "task" or feedback in self._shared)

    def step(self, step: int) -> None:
        """Move the weights after the backward pass."""
        phase, (lr, feedback_lr) = self.phase(step), self.rates(step)
        if phase == "feedback":
            for feedback, weight in self._shared.items():
                if weight.grad is not None:  # B takes W's whole update: here none but the decay of W − B
                    feedback.grad -= weight.grad  # type: ignore[operator]
            for parameter in self.forward:
                parameter.grad = None  # an optimiser passes over what has no gradient
        elif self.settings.clip_norm is not None:
            self._clip(self.settings.clip_norm)
        for name, optimizer in self.optimizers.items():
            rate = lr if name == "forward" else feedback_lr
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        if self.settings.update_noise:
            self._noise(phase, lr, feedback_lr)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimisers, all there is."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` gave."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def _clip(self, most: float) -> None:
        norm = nn.utils.get_total_norm([p.grad for p in self.forward if p.grad is not None])
        # Feedback that shares the forward weights' steps is scaled like them, or Kolen-Pollack would not contract.
        nn.utils.clip_grads_with_norm_(self.forward + self._together, most, norm)

    @torch.no_grad()
    def _noise(self, phase: Phase, lr: float, feedback_lr: float | None) -> None:
        noisy = []
        if self.settings.noise_on != "feedback" and phase != "feedback":
            noisy += [(p, lr) for p in self.weights]
        if self.settings.noise_on != "forward" and phase != "task" and feedback_lr is not None:
            noisy += [(p, feedback_lr) for p in self.feedback]
        for parameter, rate in noisy:
            parameter.add_(torch.randn_like(parameter), alpha=rate * self.settings.update_noise)


def _build(kind: str, groups: list[dict[str, Any]], settings: Settings, momentum: float) -> torch.optim.Optimizer:
    # fused: one pass over memory for each parameter, which is what keeps a second set of weights affordable.
    if kind == "sgd":
        nesterov = settings.nesterov and momentum > 0
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)
    if kind == "adam":
        return torch.optim.Adam(groups, lr=0.0, fused=True)
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def _unique(tensors: Any) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
