"""How far the layers below the last one serve the task: a last layer is trained anew on what they make of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import CONFIG
from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.observe.exchanged_blocks import lower_blocks, with_block_of, without_block
from wtdiag.trainers.observe.open_run import sizes
from wtdiag.trainers.observe.recorded import Recorded, in_batches

ARMS = ("learned", "frozen", "re-randomised", "removed")
"""The lower layers: as the run left them, as it began with them, drawn anew, and none, so that the input remains."""
_BATCH = 64
_RATE = 0.05  # of SGD with momentum on standardised features
_MOMENTUM = 0.9


def answers(
    of: Recorded, *, epochs: int, seeds: int, examples: int, tested: int, by_block: bool = False
) -> Iterator[tuple[str, str, int, NDArray[np.bool_]]]:
    """Yield whether the test examples are answered rightly, ``(block, arm, seed, right)``; block "" is all of them.

    Seeds are paired: under one seed, all arms have the same training examples, order of batches and test examples. The
    last layer is a linear classifier of the standardised features, trained by SGD with momentum for some epochs.
    ``by_block`` changes each block alone too, while the others stay as the run left them.

    Raises
    ------
    InputError
        If the run began with weights from a file, and has no snapshot of its beginning.
    """
    test_x, test_y = of.examples(of.data.test, tested)
    frozen = _beginning(of)
    for seed in range(seeds):
        x, y = of.examples(of.data.train, examples, seed=1000 + seed)
        drawn = _calibrated(_drawn(of, 10_000 + seed), of)
        models: list[tuple[str, str, nn.Module | None]] = [
            ("", arm, model) for arm, model in zip(ARMS, (of.model, frozen, drawn, None), strict=True)
        ]
        for block, arm, model in models + (_by_block(of, frozen, drawn) if by_block else []):
            train, test = (each.flatten(1) if model is None else features(model, each) for each in (x, test_x))
            yield block, arm, seed, _trained(train, y, test, test_y, of.data.classes, epochs, seed)


def count_blocks(of: Recorded) -> int:
    """Return the number of arms of all blocks together, which is that of trainings for each seed."""
    x, _ = of.examples(of.data.train, 2)
    return sum(2 + (without_block(of.model, block, x) is not None) for block in lower_blocks(of.model))


def _by_block(of: Recorded, frozen: nn.Module, drawn: nn.Module) -> list[tuple[str, str, nn.Module | None]]:
    """Return the networks in which one block is not as the run left it, by block and arm."""
    models: list[tuple[str, str, nn.Module | None]] = []
    for block, names in lower_blocks(of.model).items():
        for arm, other in (("frozen", frozen), ("re-randomised", drawn)):
            models.append((block, arm, _calibrated(with_block_of(of.model, other, names), of)))
        if (without := without_block(of.model, block, of.examples(of.data.train, 2)[0])) is not None:
            models.append((block, "removed", _calibrated(without, of)))
    return models


def _beginning(of: Recorded) -> nn.Module:
    """Return the run's network as it was before its first step."""
    if 0 in of.run.steps:
        return _calibrated(of.run.model(0).to(of.device), of)
    if of.settings.pretrained is not None:
        raise InputError(f"run: {of.run.path} began with weights from a file, and has no snapshot of step 0")
    return _calibrated(_drawn(of, of.settings.seed), of)


def _drawn(of: Recorded, seed: int) -> nn.Module:
    """Return the run's network with the initial weights of a seed."""
    shape, classes = sizes(of.run.config["network"], str(of.run.path / CONFIG))
    settings = dataclasses.replace(of.settings, seed=seed, pretrained=None)
    return build_network(settings, shape=shape, classes=classes).to(of.device)


def _calibrated(model: nn.Module, of: Recorded) -> nn.Module:
    """Give the batch norm of a network that was not trained the statistics of the data."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for module in norms:
        module.momentum = None  # the mean over all batches that follow
        module.reset_running_stats()
    if norms:
        model.train()
        in_batches(model, of.examples(of.data.train, 1000)[0])
    return model


def features(model: nn.Module, x: Tensor) -> Tensor:
    """Return the input of the network's last layer in evaluation mode, as (examples, features).

    Raises
    ------
    InputError
        If its first axis does not count the examples.
    """
    entered: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        entered.append(args[0])

    def last_input(batch: Tensor) -> Tensor:
        entered.clear()
        model(batch)
        if len(entered[-1]) != len(batch):
            raise InputError("baseline: the last layer's input does not count the examples along its first axis")
        return entered[-1].flatten(1)

    handles = [layer.register_forward_pre_hook(note) for _, layer in synapses(model)]
    model.eval()
    try:
        return in_batches(last_input, x)
    finally:
        for handle in handles:
            handle.remove()


def _trained(
    x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, classes: int, epochs: int, seed: int
) -> NDArray[np.bool_]:
    """Train a linear classifier of features, and return whether it answers the test examples rightly."""
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    x, test_x = (x - mean) / scale, (test_x - mean) / scale
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    steps = epochs * -(-len(x) // _BATCH)
    # Many features make steps large: the rate is per feature.
    optimizer = torch.optim.SGD([weight, bias], lr=_RATE / max(1.0, x.shape[1] / 64), momentum=_MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(x), generator=generator), _BATCH):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(F.linear(x[batch], weight, bias), y[batch]))
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return np.asarray((F.linear(test_x, weight, bias).argmax(1) == test_y).cpu().numpy(), dtype=np.bool_)
