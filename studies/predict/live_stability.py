"""The numbers of the early warning, step-size number and predicted gain, for a training at its present step.

They are those that `diagnostics.analysis.analyze` measures of a snapshot, but measured on the live network, without
any other measure.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from wtdiag.probes import Quantities
from wtdiag.trainers.config.device import RandomState
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.observe.rates import decay_in_gradient
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import Rule


class Stability(NamedTuple):
    """Step-size number and log gain of a whole network.

    Attributes
    ----------
    step_size_number : float
        The largest over the layers, S = η / η*, with η* the largest stable rate; unstable above 1.
    log_gain : float
        Σ log |⟨B*, W⟩ / ⟨W, W⟩| over the layers that carry error, with B* the fixed point of B.
    """

    step_size_number: float
    log_gain: float


def stability(training: Training) -> Stability:
    """Return the stability of a training at its present step, on its probe batch; the training is left as it was.

    S = η / η* is the learning rate of B over the largest at which its learning from random batches is stable; it is
    η λmax(H) / (2(1 + μ)) where batches do not differ in H, the curvature in the gradient that B descends,
    ∂B = H B − T. The log gain is Σ log |⟨B*, W⟩ / ⟨W, W⟩|, where B* = H⁻¹ T is the fixed
    point of B at these W; its exponential is the factor by which errors will grow on their way down. Both are pure
    numbers; for each layer they are the ``step_size_number`` and the ``predicted_gain`` of
    `probes.measures.dynamics.learning`.

    Parameters
    ----------
    training
        A training before a step or at its end; learning rates and coefficients are those of the step that follows.

    Returns
    -------
    Stability
        ``step_size_number``, the largest over the layers, is NaN if B does not learn, or learns by another optimiser
        than SGD: steps of Adam do not scale with the gradient. ``log_gain``, summed over the layers whose feedback
        carries error, is NaN if B does not learn, or has no attracting fixed point in one of these layers.

    References
    ----------
    The rules: Kunin et al. 2020, arXiv:2003.01513; Akrout et al. 2019, arXiv:1904.05391. The limit of stability:
    Polyak 1964, doi:10.1016/0041-5553(64)90137-5.

    Examples
    --------
    Symmetric alignment has H = decay, T = self · W, so that S = η decay / 2 and B* = self / decay · W:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from wtdiag.trainers.config.settings import Settings
    >>> settings = Settings(rule="sa", feedback_lr=2.0, depth=3, coefficients={"decay": 0.1, "self": 0.2})
    >>> measured = stability(Training(settings, Path(tempfile.mkdtemp(), "sa")))
    >>> round(measured.step_size_number, 6), round(measured.log_gain, 6)
    (0.1, 1.386294)
    """
    step, laws = training.progress.step, Laws(training)
    rule = training.learner.rule_at(step)
    # No step follows the end of a run; the last one stands in for it, as in the analysis of the last snapshot.
    descent = Descent.of(training.learner, min(step, training.total - 1))
    return Stability(laws.step_size_number(rule, descent), laws.log_gain(rule, descent.weight_decay))


@dataclass(frozen=True)
class Descent:
    """Optimiser and batches of B, on which S depends besides the rule; see `trainers.observe.laws.Law`."""

    lr: float = math.nan
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    batch_size: int | None = None
    epoch: int | None = None

    @classmethod
    def of(cls, learner: Learner, step: int) -> Descent:
        """Return the descent at a step, read from the optimiser that moves B."""
        moved = {id(feedback) for feedback in learner.feedback}
        for optimizer in learner.optimizers.values():
            for group in optimizer.param_groups:
                if any(id(parameter) in moved for parameter in group["params"]):
                    _, lr = learner.rates(step)
                    assert lr is not None
                    kind = learner.feedback_kind
                    weight_decay = decay_in_gradient(kind, group["weight_decay"], learner.rule_at(step))
                    momentum, nesterov = group.get("momentum", 0.0), group.get("nesterov", False)
                    batch_size = learner.settings.batch_size
                    return cls(lr, kind, momentum, nesterov, weight_decay, batch_size, learner.epoch)
        return cls()


class Laws:
    """Learning of the feedback of a network at its present weights, for any coefficients and learning rates.

    Parameters
    ----------
    training
        Source of the network and the probe batch; the network must not change while this is used.
    """

    def __init__(self, training: Training) -> None:
        x, target = (tensor.to(training.device) for tensor in training.probe_batch())
        with RandomState(training.device, training.settings.seed).active():  # dropout draws the same units each time
            signals = error_signals(training.model, x, target)
        self._layers = [
            (layer, signals[name]["law"]) for name, layer in synapses(training.model) if "law" in signals.get(name, {})
        ]

    def step_size_number(self, rule: Rule, descent: Descent) -> float:
        """Return the largest step-size number over the layers."""
        layers = self._measured(rule, dataclasses.asdict(descent))
        return float(np.fmax.reduce([measured["step_size_number"] for _, measured in layers], initial=math.nan))

    def log_gain(self, rule: Rule, weight_decay: float) -> float:
        """Return the sum of the logarithms of the predicted gains of all layers that carry error."""
        layers = self._measured(rule, {"weight_decay": weight_decay})
        gains = [measured["predicted_gain"] for carries_error, measured in layers if carries_error]
        with np.errstate(divide="ignore"):
            return float(np.log(np.abs(gains)).sum()) if gains else math.nan

    def _measured(self, rule: Rule, descent: dict[str, Any]) -> Iterator[tuple[bool, Quantities]]:
        """Yield for each layer whether it carries error, and its measures."""
        for layer, law in self._layers:
            uses = tuple(dataclasses.replace(use, rule=rule) for use in law.uses)
            law_now = dataclasses.replace(law, uses=uses, **descent)
            tensors = {"forward": layer.weight, "feedback": layer.feedback}
            weights = {side: tensor.detach().cpu().numpy() for side, tensor in tensors.items()}
            yield layer.carries_error, Quantities(**weights, law=law_now)
