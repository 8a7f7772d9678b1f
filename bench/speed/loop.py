"""Cost of a whole training beyond its steps: ``wtdiag train`` against a plain loop of the same steps and evaluations.

Both sides build the network, train it and evaluate it after each epoch; the training by wtdiag also logs, takes 20
snapshots and writes its checkpoints. The plain loop has PyTorch's own layers, and takes its batches from a DataLoader
of normalised images that are in memory; a second one only indexes them, the least that a loop can do. No plain loop
reads the loss of a step. The data set is loaded once for all. Expected result: 1.25 times the plain loop for the
default network on digits, 230 steps of 1.4 ms, and 1.03 for ResNet-20.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from bench.speed.timing import paired_ratios
from wtdiag.trainers import data, models
from wtdiag.trainers.config.schedules import learning_rate
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data.synthetic import SyntheticSplit
from wtdiag.trainers.loop.fit import Training

TARGETS = {"mlp": 1.25, "resnet20": 1.03}
ROUNDS = {"mlp": 15, "resnet20": 3}


def run() -> None:
    """Measure and print."""
    print(f"{'':28}{'steps':>6}{'plain, s':>10}{'ratio':>8}{'target':>8}{'without DataLoader':>20}")
    with tempfile.TemporaryDirectory() as folder:
        for model, dataset, epochs in (("mlp", data.load("digits"), 10.0), ("resnet20", _images(), 5.0)):
            for rule in ("bp", "fa"):
                settings = Settings(rule=rule, model=model, data=dataset.name, epochs=epochs, lr=0.05, batch_size=64)
                steps = round(epochs * data.batch_count(dataset.train, 64))
                sides: dict[str, Callable[[], object]] = {
                    "plain": partial(_plain, settings, dataset, _loaded),
                    "indexing": partial(_plain, settings, dataset, _indexed),
                    "wtdiag": partial(_train, settings, dataset, Path(folder, "run")),
                }
                result = paired_ratios(sides, rounds=ROUNDS[model], repeat=1, warm=1)
                seconds, ratio = result["plain"][0], result["wtdiag"][1]
                title, over_least = f"{model} on {dataset.name}, {rule}", ratio / result["indexing"][1]
                print(
                    f"{title:28}{steps:6}{seconds:10.2f}{ratio:8.2f}{TARGETS[model]:8.2f}{over_least:20.2f}", flush=True
                )


def _images() -> data.Data:
    """Return noise as 32x32 images in memory."""
    shape, classes = (3, 32, 32), 10
    splits = [SyntheticSplit.of(count, shape, classes, first) for count, first in ((1280, 0), (256, 1280))]
    parts = [(split.pixels(torch.arange(len(split)), None), split.targets) for split in splits]
    return data.array_data("noise", parts[0], parts[1], classes)


def _train(settings: Settings, dataset: data.Data, out: Path) -> None:
    *_, progress = Training(settings, out, dataset=dataset)
    assert progress.status == "finished"
    shutil.rmtree(out)


def _loaded(x: Tensor, y: Tensor, size: int) -> Iterable[tuple[Tensor, Tensor]]:
    return DataLoader(TensorDataset(x, y), batch_size=size, shuffle=True)


def _indexed(x: Tensor, y: Tensor, size: int) -> Iterable[tuple[Tensor, Tensor]]:
    return ((x[indices], y[indices]) for indices in torch.randperm(len(x)).split(size))


def _plain(
    settings: Settings, dataset: data.Data, batches: Callable[[Tensor, Tensor, int], Iterable[tuple[Tensor, Tensor]]]
) -> None:
    torch.manual_seed(0)
    model = models.build(settings.model, classes=dataset.classes, shape=dataset.shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=settings.momentum, fused=True)
    (x, y), (test_x, test_y) = (split.batch(torch.arange(len(split))) for split in (dataset.train, dataset.test))
    epoch = data.batch_count(dataset.train, settings.batch_size)
    total, step = round(settings.epochs * epoch), 0
    for _ in range(math.ceil(settings.epochs)):
        model.train()
        for inputs, targets in batches(x, y, settings.batch_size):
            rate = learning_rate(settings.schedule, step, total=total, warmup=epoch)
            optimizer.param_groups[0]["lr"] = 0.05 * rate
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            step += 1
        model.eval()
        with torch.no_grad():
            output = torch.cat([model(part) for part in test_x.split(256)])
            F.cross_entropy(output, test_y).item()
            (output.argmax(1) == test_y).double().mean().item()
