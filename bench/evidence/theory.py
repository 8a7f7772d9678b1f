"""Predictions of the linear theory of the feedback's learning, against simulations of the learning itself.

``python -m bench theory`` takes a few minutes and writes its table to docs/theory.md. Expected result: critical
learning rates within 10 %, angles of fixed points within 3°, angles that noise adds within 2°.

A prediction is made in the same way as by `wtdiag.analyze`, from the network and one batch. A simulation takes one
layer out of the network, with the inputs that it had, and lets PyTorch's own optimiser follow the gradients that
backward passes leave in ``feedback.grad`` while W stands still. The two share only the layer.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from bench.evidence.page import fill, table
from wtdiag.probes import Quantities
from wtdiag.trainers import models
from wtdiag.trainers.config.device import RandomState
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import rule as build_rule

BATCH = 32
NOISE_BATCH = 64
LAYERS = {"mlp": ("fc2", torch.float64, 256), "conv": ("conv2", torch.float32, 64)}
"""By model: the layer, its precision, and the number of examples in the batch that everything is computed on."""
REGULARISED = ("ia", "aa", "sa", "wm-reg")
NOISES = (
    ("sa", "updates"),
    ("ia", "updates"),
    ("wm-reg", "updates"),
    ("ia", "batches"),
    ("wm-reg", "batches"),
    ("wm", "inputs"),
)
NOISE_CASES = (
    *(("aa", inputs, 0.0) for inputs in (32, 64, 256)),
    ("aa", 64, 0.9),
    ("ia", 64, 0.0),
    ("ia", 64, 0.9),
)
HEADS = ("quantity", "rule", "layer", "conditions", "predicted", "simulated", "difference")
LIMITS = {"critical rate": 0.1, "resting angle": 3.0, "noise angle": 2.0}


@dataclass(frozen=True)
class Prediction:
    """One prediction and the result of its simulation."""

    quantity: str
    rule: str
    layer: str
    conditions: str
    predicted: float
    simulated: float

    @property
    def difference(self) -> float:
        """Difference to the prediction, relative for rates and in degrees for angles, which `LIMITS` bounds."""
        relative = self.quantity == "critical rate"
        return self.simulated / self.predicted - 1 if relative else self.simulated - self.predicted

    def cells(self) -> tuple[str, ...]:
        """Return the row as text."""
        if self.quantity == "critical rate":
            numbers = f"{self.predicted:.4g}", f"{self.simulated:.4g}", f"{self.difference:+.1%}"
        else:
            numbers = f"{self.predicted:.1f}°", f"{self.simulated:.1f}°", f"{self.difference:+.1f}°"
        return self.quantity, self.rule, self.layer, self.conditions, *numbers


class SimulatedCase:
    """One layer of a network, trained for an epoch by backprop, with feedback that learns by a rule.

    Parameters
    ----------
    model, rule
        Names.
    **coefficients
        Those of the rule.
    """

    def __init__(self, model: str, rule: str, **coefficients: Any) -> None:
        self.name, self.rule = model, " ".join([rule, *(f"{key}={value}" for key, value in coefficients.items())])
        name, dtype, examples = LAYERS[model]
        images, labels = _digits(dtype)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = _trained(model, images, labels)
            net = transport_free(net, build_rule(rule, **coefficients))
            self.layer: Any = dict(synapses(net))[name]
            seen: list[Tensor] = []
            hook = self.layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
            net.train()(images[:examples])
            hook.remove()
            self.x = seen[0]
            self.signals = error_signals(net, images[:examples], labels[:examples])[name]
        self.start = self.layer.feedback.detach().clone()
        self.weight = self.layer.weight.detach()

    @classmethod
    def alone(cls, fan_in: int, rule: str, **coefficients: Any) -> SimulatedCase:
        """Return a dense layer of random weights by itself, for rules that learn from noise."""
        case = cls.__new__(cls)
        case.name, case.rule = f"{fan_in} inputs", " ".join([rule, *(f"{k}={v}" for k, v in coefficients.items())])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = transport_free(nn.Linear(fan_in, 32).double(), build_rule(rule, **coefficients))
            case.layer = dict(synapses(net))["model"]
            case.x = torch.zeros(NOISE_BATCH, fan_in, dtype=torch.float64)
            case.signals = error_signals(net, case.x, torch.zeros(NOISE_BATCH, dtype=torch.int64))["model"]
        case.start, case.weight = case.layer.feedback.detach().clone(), case.layer.weight.detach()
        return case

    def predict(self, measure: str, **conditions: Any) -> float:
        """Return the predicted value of a measure under a given learning rate, momentum and noise."""
        law = dataclasses.replace(self.signals["law"], **{"lr": 1.0, "optimizer": "sgd", **conditions})
        weights = {"forward": self.weight.numpy(), "feedback": self.start.numpy()}
        return float(Quantities(**weights, law=law)[measure])

    def train(
        self,
        lr: float,
        momentum: float = 0.0,
        batch: int | None = None,
        update_noise: float = 0.0,
        start: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Train only the feedback, without end, on the whole batch or on random ones; yield it after each step."""
        # The noise that a rule draws is the same in each training, too.
        random = RandomState(self.x.device, 1)
        layer = copy.deepcopy(self.layer)
        if start is not None:
            layer.feedback.data.copy_(start)
        layer.weight.requires_grad_(False)
        feedback = layer.feedback
        optimizer = torch.optim.SGD([feedback], lr=lr, momentum=momentum)
        generator = torch.Generator().manual_seed(1)
        while True:
            x = self.x if batch is None else self.x[torch.randint(len(self.x), (batch,), generator=generator)]
            optimizer.zero_grad()
            with random.active():
                layer(x).sum().backward()
            optimizer.step()
            with torch.no_grad():
                feedback += update_noise * torch.randn(feedback.shape, generator=generator, dtype=feedback.dtype)
            yield feedback.detach()

    def moves_apart(self, lr: float, momentum: float, batch: int | None, steps: int) -> bool:
        """Return whether the distance between two B grows over the last three quarters of so many steps."""
        trainings = (self.train(lr, momentum, batch, start=start) for start in (self.start, -self.start))
        logs: list[float] = []
        for one, other in islice(zip(*trainings, strict=True), steps):
            distance = float((one - other).norm())
            if not 1e-9 < distance / float(self.start.norm()) < 1e9:
                return not distance < 1
            logs.append(math.log(distance))
        second, fourth = (np.mean(logs[start : start + steps // 4]) for start in (steps // 4, 3 * steps // 4))
        return bool(fourth > second)


def critical_rate(
    case: SimulatedCase, momentum: float = 0.0, batch: int | None = None, steps: int = 400, halvings: int = 6
) -> Prediction:
    """Search for the learning rate above which two B that see the same batches move apart, from the prediction on.

    Their distance follows H alone, because the targets of both are the same, and it shrinks or grows exponentially.
    """
    conditions = (f"momentum {momentum}" if momentum else "plain") + (f", batches of {batch}" if batch else "")
    # Without random batches, all examples are in each step.
    law = {"momentum": momentum, "batch_size": batch or len(case.x), "epoch": None if batch else 1}
    predicted = 1 / case.predict("step_size_number", **law)
    low, high = 0.6 * predicted, predicted / 0.6
    for _ in range(halvings):
        middle = math.sqrt(low * high)
        apart = case.moves_apart(middle, momentum, batch, steps)
        low, high = (low, middle) if apart else (middle, high)
    return Prediction("critical rate", case.rule, case.name, conditions, predicted, math.sqrt(low * high))


def _rest(case: SimulatedCase, steps: int) -> Tensor:
    """Return the feedback after training on the whole batch, with momentum and at half the critical rate."""
    lr = 0.5 / case.predict("step_size_number", momentum=0.9)
    return next(islice(case.train(lr, momentum=0.9), steps, None)).clone()


def resting_angle(case: SimulatedCase, steps: int) -> Prediction:
    """Train until B rests."""
    simulated = _angle(_rest(case, steps), case.weight)
    return Prediction(
        "resting angle", case.rule, case.name, f"{steps} steps", case.predict("predicted_angle"), simulated
    )


def noise_angle(case: SimulatedCase, source: str, steps: int, momentum: float = 0.0) -> Prediction:
    """Train from rest, and measure the average angle of B to its rest over the last steps."""
    lr = 0.3 / case.predict("step_size_number", momentum=momentum)
    update_noise = 0.03 * float(case.weight.std()) if source == "updates" else 0.0
    batch = BATCH if source == "batches" else None
    # The noise of inputs is that of as many examples as there are; noise of updates alone is that of an endless batch.
    batch_size = {"updates": 10**12, "batches": BATCH, "inputs": len(case.x)}[source]
    rest = _rest(case, steps)
    kept = []
    for step, feedback in enumerate(islice(case.train(lr, momentum, batch, update_noise, start=rest), 2 * steps)):
        if step >= steps and step % 10 == 0:
            kept.append(feedback.clone())
    if source == "inputs":  # here no training is free of noise, so that the mean stands for the rest
        rest = torch.stack(kept).mean(0)
    simulated = float(np.mean([_angle(feedback, rest) for feedback in kept]))
    given = {"lr": lr, "momentum": momentum, "update_noise": update_noise, "batch_size": batch_size}
    predicted = case.predict("predicted_noise_angle", **given)
    conditions = f"noise of {source}" + (f", momentum {momentum}" if momentum else "")
    return Prediction("noise angle", case.rule, case.name, conditions, predicted, simulated)


def rows(steps: int = 3000) -> Iterator[Prediction]:
    """Yield all predictions with their simulations, one after the other."""
    for model in LAYERS:
        cases = {rule: SimulatedCase(model, rule) for rule in (*REGULARISED, "wm")}
        for rule in REGULARISED:
            yield critical_rate(cases[rule])
            yield critical_rate(cases[rule], momentum=0.9)
            yield critical_rate(cases[rule], batch=BATCH, steps=1000)
        for rule in ("ia", "aa"):
            for batch in (16, 64):
                yield critical_rate(cases[rule], momentum=0.9, batch=batch, steps=1000)
        for rule in REGULARISED:
            yield resting_angle(cases[rule], steps)
        for rule, source in NOISES:
            yield noise_angle(cases[rule], source, steps)
            yield noise_angle(cases[rule], source, steps, momentum=0.9)


def noise_rows(steps: int = 1000) -> Iterator[Prediction]:
    """Yield the critical rates of layers whose feedback learns from noise."""
    for rule, inputs, momentum in NOISE_CASES:
        yield critical_rate(SimulatedCase.alone(inputs, rule, inputs="noise"), momentum, batch=NOISE_BATCH, steps=steps)


def run() -> None:
    """Print all predictions beside their simulations, and write them to docs/theory.md."""
    made = []
    print(("{:<14} {:<7} {:<5} {:<30} {:>9} {:>9} {:>10}").format(*HEADS))
    for row in chain(rows(), noise_rows()):
        made.append(row)
        beyond = "" if abs(row.difference) <= LIMITS[row.quantity] else "  beyond the limit"
        print("{:<14} {:<7} {:<5} {:<30} {:>9} {:>9} {:>10}".format(*row.cells()) + beyond, flush=True)
    fill("theory.md", "theory", table(HEADS, [row.cells() for row in made]))


def _digits(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    scaled = (images[order] - images.mean()) / images.std()
    return torch.from_numpy(scaled.reshape(-1, 1, 8, 8)).to(dtype), torch.from_numpy(labels[order])


def _trained(name: str, images: Tensor, labels: Tensor) -> nn.Module:
    net = models.build(name, classes=10, shape=(1, 8, 8)).to(images.dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for x, target in zip(images.split(64), labels.split(64), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(net(x), target).backward()
        optimizer.step()
    return net


def _angle(a: Tensor, b: Tensor) -> float:
    cosine = float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
