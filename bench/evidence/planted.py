"""Runs with planted faults, and healthy ones, on small networks of several kinds: trained, analysed and kept on disk.

`bench.evidence.faults` diagnoses them. A run is kept under a name that says its whole case, so that detectors can be
changed without training again; only the analysis is read then.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
import xarray as xr

import wtdiag
from wtdiag.diagnostics.analysis.analyze import read_analysis, write_analysis
from wtdiag.diagnostics.analysis.derive import derive
from wtdiag.probes.records.schema import ANALYSIS, Run
from wtdiag.trainers import data
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.layers.synaptic import Synaptic

Plant = Callable[[Synaptic], object]
_GLYPHS: dict[str, Any] = {"data": "glyphs", "image_size": 8, "batch_size": 48, "warmup": 0.2, "probe_size": 24}


MEASURES = (
    "weight_angle", "projection_angle", "sign_agreement", "norm_ratio", "weight_gain", "forward_norm", "feedback_norm",
    "forward_spectral_norm", "feedback_spectral_norm", "feedback_nuclear_norm", "forward_effective_rank",
    "feedback_effective_rank", "error_angle", "error_angle_local", "error_angle_inherited", "error_angle_total",
    "error_norm_ratio", "below_floor", "dead_units", "activation_norm", "radial_cosine", "step_size_number",
    "relaxation_time", "predicted_gain", "predicted_angle", "predicted_noise_angle", "rest_distance",
    "relative_update", "tracking_lag", "relative_step", "travel_time", "sent_effective_rank",
    "sent_effective_rank_exact", "residual_growth",
)  # fmt: skip
"""The probes that detectors read."""


@dataclass(frozen=True)
class Network:
    """A network and its task: the settings, the hidden layers in which faults are planted, and the length of a run."""

    settings: Mapping[str, Any]
    layers: tuple[str, ...]
    epochs: float = 1.0
    interval: int = 32


NETWORKS = {
    "mlp": Network({"model": "mlp", "depth": 6}, ("fc3", "fc4", "fc5"), epochs=5.0, interval=29),
    "conv": Network({"model": "conv"} | _GLYPHS, ("conv3", "conv4", "conv5")),
    "resnet8": Network({"model": "resnet8"} | _GLYPHS, ("layer1.0.conv2", "layer2.0.conv1", "layer3.0.conv1")),
    "resnet20": Network({"model": "resnet20"} | _GLYPHS, ("layer1.2.conv1", "layer2.0.conv1", "layer3.1.conv1")),
}


@dataclass(frozen=True)
class Fault:
    """One fault: the kind of finding that names it, and how it is planted in one layer.

    ``plant`` is applied to the layer before training, ``again`` after each step from the share ``since`` of the run on,
    and ``once`` at that point. ``frozen`` leaves the layer's feedback out of the optimiser, or its forward weights.
    ``everywhere`` plants it in all layers, and then the kind alone has to be named. ``later`` says that it was counted
    after the others, beside healthy runs only.
    """

    kind: str
    rule: str = "sa"
    plant: Plant | None = None
    again: Plant | None = None
    once: Plant | None = None
    since: float = 0.0
    frozen: str = ""
    half: bool = False
    later: bool = False
    everywhere: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    networks: tuple[str, ...] = ("mlp", "conv", "resnet8")


def coefficients(**factors: float) -> Plant:
    """Return a fault that multiplies coefficients of the layer's rule."""

    def plant(layer: Synaptic) -> None:
        values = {name: factor * getattr(layer.rule, name) for name, factor in factors.items()}
        layer.rule = dataclasses.replace(layer.rule, **values)

    return plant


def scaled(factor: float) -> Plant:
    """Return a fault that multiplies the feedback by a factor."""
    return lambda layer: layer.feedback.mul_(factor)


def noisy(share: float) -> Plant:
    """Return a fault that adds Gaussian noise to the feedback, in units of the forward weights' standard deviation."""
    return lambda layer: layer.feedback.add_(torch.randn_like(layer.feedback), alpha=share * float(layer.weight.std()))


def random(layer: Synaptic) -> None:
    """Replace the feedback by a fresh random one."""
    layer.feedback.normal_(0.0, float(layer.weight.std()))


def tilted(degrees: float) -> Plant:
    """Return a fault that sets the feedback to W, turned by an angle in a new direction each time."""

    def plant(layer: Synaptic) -> None:
        away = torch.randn_like(layer.weight) * layer.weight.std()
        layer.feedback.copy_(layer.weight + math.tan(math.radians(degrees)) * away)

    return plant


def rank_one(layer: Synaptic) -> None:
    """Reduce the feedback to its first singular direction, and keep its norm."""
    u, s, v = torch.linalg.svd(layer.feedback.flatten(1), full_matrices=False)
    layer.feedback.copy_((s.norm() * torch.outer(u[:, 0], v[0])).view_as(layer.feedback))


def silent(layer: Synaptic) -> None:
    """Hold every unit of the layer below its threshold."""
    layer.bias.fill_(-1e3)


_ADAM = {"feedback_optimizer": "adam", "feedback_lr": 0.005}
_PLAIN = ("mlp", "conv")  # without residual branches
_ALL = ("mlp", "conv", "resnet8", "resnet20")

FAULTS = {
    "target ×10": Fault("feedback-too-large", plant=coefficients(self=10.0), networks=_ALL),
    "target ×0.1": Fault("feedback-too-small", plant=coefficients(self=0.1), networks=_ALL),
    "target −1": Fault("sign-flip", plant=coefficients(self=-1.0)),
    "left out of the optimiser": Fault("frozen-feedback", frozen="feedback", networks=_ALL),
    "left out of the optimiser, kp": Fault("frozen-feedback", "kp", frozen="feedback"),
    "rank one after each step": Fault("rank-collapse", again=rank_one),
    "step ×50": Fault("step-too-large", plant=coefficients(self=50.0, decay=50.0), networks=_ALL),
    "step ×50, wm": Fault("step-too-large", "wm", plant=coefficients(amp=50.0, decay=50.0)),
    "step ×50, ia by sgd": Fault(
        "step-too-large",
        "ia",
        plant=coefficients(amp=50.0, null=50.0, decay=50.0),
        settings={"feedback_optimizer": "sgd", "feedback_lr": 1.0},
    ),
    "noise in each step": Fault("noisy-feedback", again=noisy(1.0), networks=_ALL),
    "noise in each step, kp": Fault("noisy-feedback", "kp", again=noisy(1.0)),
    "fresh random in each step": Fault("noisy-feedback", again=random),
    "step ×0.001": Fault("feedback-too-slow", plant=coefficients(self=1e-3, decay=1e-3)),
    "zero after each step": Fault("feedback-too-small", again=scaled(0.0)),
    "decay ×0.1, wm": Fault("feedback-too-large", "wm", plant=coefficients(decay=0.1)),
    "no amplification, wm": Fault("feedback-too-small", "wm", plant=coefficients(amp=0.0)),
    "×10, fa": Fault("feedback-too-large", "fa", plant=scaled(10.0)),
    "×0.1, fa": Fault("feedback-too-small", "fa", plant=scaled(0.1)),
    "units silent": Fault(
        "signal-below-floor", again=silent, settings={"batch_norm": False, "lr": 0.01}, networks=_PLAIN
    ),
    "rank one, dfa": Fault("error-rank-collapse", "dfa", plant=rank_one, later=True, networks=("mlp",)),
    "rank one from half-way on, dfa": Fault(
        "error-rank-collapse", "dfa", once=rank_one, since=0.5, later=True, networks=("mlp",)
    ),
    "W ×30": Fault(
        "residual-growth",
        "bp",
        plant=lambda layer: layer.weight.mul_(30.0),
        settings={"batch_norm": False, "lr": 0.001},
        later=True,
        networks=_PLAIN,
    ),
    "W ×30, dfa": Fault(
        "residual-growth",
        "dfa",
        plant=lambda layer: layer.weight.mul_(30.0),
        settings={"batch_norm": False, "lr": 0.001},
        later=True,
        networks=_PLAIN,
    ),
    "NaN half-way": Fault("divergence", once=scaled(math.nan), since=0.5),
    "W +2 % a step under batch norm": Fault("bn-runaway", again=lambda layer: layer.weight.mul_(1.02)),
    # By Adam.
    "target ×10, adam": Fault("feedback-too-large", plant=coefficients(self=10.0), settings=_ADAM),
    "left out of the optimiser, ia by adam": Fault("frozen-feedback", "ia", frozen="feedback"),
    "noise in each step, ia by adam": Fault("noisy-feedback", "ia", again=noisy(1.0)),
    "target −1, adam": Fault("sign-flip", plant=coefficients(self=-1.0), settings=_ADAM),
    "step ×100, ia by adam": Fault("adam-step-too-large", "ia", everywhere=True, settings={"feedback_lr": 0.5}),
    "step ×0.001, ia by adam": Fault("adam-step-too-small", "ia", everywhere=True, settings={"feedback_lr": 5e-6}),
    # From half-way on.
    "noise from half-way on": Fault("noisy-feedback", again=noisy(1.0), since=0.5),
    "zero from half-way on": Fault("feedback-too-small", again=scaled(0.0), since=0.5),
    "×10 half-way, fa": Fault("feedback-too-large", "fa", once=scaled(10.0), since=0.5),
    "−W from half-way on, fa": Fault(
        "sign-flip", "fa", again=lambda layer: layer.feedback.copy_(-layer.weight), since=0.5
    ),
    # At half strength.
    "target ×3": Fault("feedback-too-large", plant=coefficients(self=3.0), half=True),
    "target ×0.3": Fault("feedback-too-small", plant=coefficients(self=0.3), half=True),
    "noise of 0.3": Fault("noisy-feedback", again=noisy(0.3), half=True),
    "noise of 0.3, kp": Fault("noisy-feedback", "kp", again=noisy(0.3), half=True),
    "×3, fa": Fault("feedback-too-large", "fa", plant=scaled(3.0), half=True),
    "×0.3, fa": Fault("feedback-too-small", "fa", plant=scaled(0.3), half=True),
    # Kinds that no fault of one parameter causes.
    "a rule that rests far from W": Fault("angle-at-ceiling", "wm-reg", everywhere=True, networks=("mlp",)),
    "all layers 50° off, in new directions": Fault("inherited-error", "fa", again=tilted(50.0), everywhere=True),
    "W left out of the optimiser, fa": Fault("not-aligning", "fa", frozen="weight"),
}
"""Faults in one layer, by a name that says what was done."""

PAIRS = (
    ("target ×10", "left out of the optimiser"),
    ("target −1", "noise in each step"),
    ("step ×50", "zero after each step"),
)
"""Two faults at once, the second in another layer."""

HEALTHY = ("sa", "wm", "kp", "aa", "ia", "bp", "fa", "usf", "dfa", "frsf", "wm-reg", "drtp")


@dataclass(frozen=True)
class FaultCase:
    """One run: a network, the names of its faults, its rule and its seed."""

    network: str
    faults: tuple[str, ...]
    rule: str
    seed: int
    epochs: float | None = None
    """Passes over the training set, if not those of the network."""

    @property
    def planted(self) -> tuple[tuple[str, str | None], ...]:
        """Kind and layer of each fault, with None for the layer of a fault in all layers."""
        layers = NETWORKS[self.network].layers
        return tuple(
            (FAULTS[name].kind, None if FAULTS[name].everywhere else layers[(self.seed + place) % len(layers)])
            for place, name in enumerate(self.faults)
        )

    @property
    def settings(self) -> wtdiag.Settings:
        """The settings of the run."""
        network = NETWORKS[self.network]
        changed: dict[str, Any] = {}
        for name in self.faults:
            changed |= FAULTS[name].settings
        recorded = {"snapshots": 3, "snapshot_every": network.interval, "device": "cpu"}
        numbers = {"seed": self.seed, "epochs": self.epochs or network.epochs}
        return wtdiag.Settings(rule=self.rule, **{**recorded, **numbers, **network.settings, **changed})

    @property
    def unharmed(self) -> FaultCase:
        """The same run without its faults."""
        return dataclasses.replace(self, faults=())


@dataclass(frozen=True)
class Trained:
    """A trained and analysed run."""

    case: FaultCase
    run: Run
    analysis: xr.Dataset

    @property
    def accuracy(self) -> float:
        """Accuracy on the test set at the end, from 0 to 1; 0 if training broke off."""
        metrics = self.run.metrics
        if self.run.config["status"] != "finished" or "test_accuracy" not in metrics:
            return 0.0
        return float(metrics.test_accuracy.iloc[-1])

    @property
    def learned(self) -> bool:
        """Whether it learned: its accuracy is at least three times that of chance."""
        return self.accuracy >= 3 / int(self.run.config["network"]["classes"])


Prepare = Callable[[wtdiag.Training], Callable[[int], object]]
"""What is done to a run before it begins; returns what is done after each step, before a snapshot is taken."""


def trained(case: FaultCase, folder: Path) -> Trained:
    """Return a run from the folder, or train and analyse it there."""

    def prepare(training: wtdiag.Training) -> Callable[[int], object]:
        actions = [
            _planted(training, FAULTS[name], layer)
            for name, (_, where) in zip(case.faults, case.planted, strict=True)
            for at, layer in synapses(training.model)
            if where in (None, at)
        ]
        return lambda step: [act(step) for act in actions]

    words = case.network, *(case.faults or ("healthy", case.rule)), str(case.seed)
    return Trained(case, *recorded(case.settings, folder, "_".join(words), prepare))


def recorded(
    settings: wtdiag.Settings, folder: Path, name: str, prepare: Prepare = lambda _: lambda _: None
) -> tuple[Run, xr.Dataset]:
    """Return a run and its analysis from a folder, by a name that says what it is, or train and analyse it there.

    Its snapshots are removed once they are analysed.
    """
    path = folder / "".join(letter if letter.isalnum() or letter in "−×." else "-" for letter in name)
    if not (path / ANALYSIS).exists():
        torch.manual_seed(settings.seed)
        training = wtdiag.Training(settings, path, dataset=_load(settings.data, settings.image_size), force=True)
        after, *_, last = prepare(training), *training.learner.optimizers.values()
        steps = count(1)
        last.register_step_post_hook(torch.no_grad()(lambda *_: after(next(steps))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of feedback that is left out, which a finding shall name
            for _ in training:
                pass
        analysis = derive(wtdiag.analyze(path, MEASURES, model=training.model))
        write_analysis(analysis, path / ANALYSIS)
        shutil.rmtree(path / "snapshots")
    return wtdiag.open_run(path), read_analysis(path / ANALYSIS)


@torch.no_grad()
def _planted(training: wtdiag.Training, fault: Fault, layer: Synaptic) -> Callable[[int], None]:
    """Plant a fault in a layer before training, and return what it does to the layer after each step."""
    if fault.plant:
        fault.plant(layer)
    for optimizer in training.learner.optimizers.values() if fault.frozen else ():
        left_out = getattr(layer, fault.frozen)
        for group in optimizer.param_groups:
            group["params"] = [each for each in group["params"] if each is not left_out]
    begin = round(fault.since * training.total)

    def act(step: int) -> None:
        if fault.once and step == begin:
            fault.once(layer)
        if fault.again and step >= begin:
            fault.again(layer)

    return act


@cache
def _load(name: str, size: int | None) -> data.Data:
    return data.load(name, image_size=size)
