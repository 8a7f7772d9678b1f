"""Cost of a training step under each rule, relative to native backprop: time, FLOPs, peak memory, and BioTorch's."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.speed.flops import step_flops
from bench.speed.memory import peak_bytes
from bench.speed.timing import paired_ratios
from wtdiag.trainers import models
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import RULES as REGISTRY

RULES = tuple(name for name, rule in REGISTRY.items() if rule.flops)
TARGETS = {  # (convolutional, mlp)
    "fa": (1.05, 1.08), "usf": (1.05, 1.08), "frsf": (1.05, 1.08), "kp": (1.10, 1.28), "sa": (1.10, 1.40),
    "wm-reg": (1.40, 1.50), "aa": (1.60, 1.65), "ia": (1.65, 1.75),
}  # fmt: skip


def networks() -> dict[str, tuple[nn.Module, Tensor, int]]:
    """Return the three networks, each with a batch and a number of rounds to time."""
    layers: list[nn.Module] = [nn.Flatten()]
    for sizes in ((784, 1024), (1024, 1024), (1024, 1024), (1024, 1024)):
        layers += [nn.Linear(*sizes), nn.ReLU()]
    return {
        "MLP 784-1024x4-10, batch 64": (nn.Sequential(*layers, nn.Linear(1024, 10)), torch.randn(64, 1, 28, 28), 21),
        "ResNet-20, 32x32, batch 32": (
            models.build("resnet20", classes=10, shape=(3, 32, 32)), torch.randn(32, 3, 32, 32), 7,
        ),
        "ResNet-18, 64x64, batch 16": (
            models.build("resnet18", classes=10, shape=(3, 64, 64)), torch.randn(16, 3, 64, 64), 5,
        ),
    }  # fmt: skip


def step_of(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return a training step: forward, backward, fused SGD, with momentum for W and for a B that shares W's steps."""
    y = torch.arange(len(x)) % 10
    own = [layer for _, layer in synapses(model) if layer.rule.learned and layer.rule.recipe.optimizer != "forward"]
    plain = [each for layer in own for each in layer.parameters_of("feedback")]
    taken = set(map(id, plain))
    moving = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups = [{"params": moving, "momentum": 0.9}] + ([{"params": plain}] if plain else [])
    optimizer = torch.optim.SGD(groups, lr=1e-6, fused=True)
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def biotorch(model: nn.Module, rule: str) -> nn.Module:
    """Return the model with BioTorch's layers."""
    from biotorch.module.biomodule import BioModule  # imported here because it is slow and only this benchmark needs it

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return BioModule(copy.deepcopy(model), mode=rule)


def run() -> None:
    """Print the tables."""
    for title, (model, x, rounds) in networks().items():
        native = step_of(copy.deepcopy(model), x)
        native()
        native_peak = peak_bytes(native)
        dense = title.startswith("MLP")
        print(f"\n{title}: native peak {native_peak / 2**20:.1f} MiB", flush=True)
        native_flops = step_flops(copy.deepcopy(model), x)
        print(f"{'':10}{'ms':>8}{'native':>8}{'ratio':>8}{'FLOPs':>8}{'target':>8}{'BioTorch':>10}{'memory':>8}")
        for rule in RULES:
            twin = transport_free(model, rule, sample=x)
            flops = step_flops(twin, x) / native_flops
            steps = {"native": native, rule: step_of(twin, x)}
            if rule in ("fa", "usf", "frsf"):
                steps["biotorch"] = step_of(biotorch(model, rule), x)
            result = paired_ratios(steps, rounds=rounds)
            # Beside backprop's memory a rule may hold the gradient of B; B and its momentum exist before the step.
            allowed = native_peak + sum(
                each.nbytes
                for _, layer in synapses(twin)
                if layer.rule.learned
                for each in layer.parameters_of("feedback")
            )
            target = f"{TARGETS[rule][dense]:.2f}" if rule in TARGETS else ""
            other = f"{result['biotorch'][1]:.2f}" if "biotorch" in result else ""
            print(
                f"{rule:10}{1e3 * result[rule][0]:8.1f}{1e3 * result['native'][0]:8.1f}{result[rule][1]:8.2f}"
                f"{flops:8.2f}{target:>8}{other:>10}{peak_bytes(steps[rule]) / allowed:8.2f}",
                flush=True,
            )
        twin, quarter = transport_free(model, "fa"), x[: len(x) // 4]
        classes = torch.zeros(len(quarter), dtype=torch.int64)
        steps = {"native": native, "probe": partial(error_signals, twin, quarter, classes)}
        ratio = paired_ratios(steps, rounds=rounds)["probe"][1]
        print(f"signal probe on a quarter batch: {ratio:.2f} of a step (target 0.40)")


def run_compiled() -> None:
    """Print the time of compiled feedback alignment over that of compiled backprop."""
    for title, (model, x, rounds) in list(networks().items())[:2]:
        native = torch.compile(copy.deepcopy(model), fullgraph=True)
        twin = torch.compile(transport_free(model, "fa"), fullgraph=True)
        ratios = paired_ratios({"native": step_of(native, x), "fa": step_of(twin, x)}, rounds=2 * rounds)
        print(f"{title}: compiled fa / compiled backprop {ratios['fa'][1]:.2f} (target 1.05)")
