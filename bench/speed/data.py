"""Images a second that wtdiag reads from files, relative to a plain DataLoader with the same transforms and workers.

``python -m bench data [IMAGES]`` writes 5,000 JPEGs of 500x375 into a temporary folder, or fewer, and reads them as a
training does: a random crop of 8 to 100 % of the area, resized to 224 pixels, flipped with probability 1/2, in batches
of 64. Both sides end with normalised float32 batches. Expected result: at least 0.95 of the plain DataLoader.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from bench.speed.timing import paired_ratios
from wtdiag.trainers import data
from wtdiag.trainers.data.folders import MEAN, STD
from wtdiag.trainers.data.loading import default_workers

IMAGES, SIZE, BATCH = 5000, 224, 64
CLASSES, DIFFERENT = 10, 100
ROUNDS = 5
TARGET = 0.95


def run(images: int = IMAGES) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder, images)
        split = data.load("imagefolder", data_dir=folder, image_size=SIZE).train
        print(f"{images} JPEGs of 500x375, batches of {BATCH}, {ROUNDS} rounds, medians; target {TARGET:.2f}")
        print(f"{'workers':>7}{'plain, images/s':>17}{'wtdiag':>9}{'ratio':>8}")
        for workers in sorted({0, 1, default_workers()}):
            sides = {"plain": partial(_plain, folder / "train", workers), "wtdiag": partial(_ours, split, workers)}
            result = paired_ratios(sides, rounds=ROUNDS, repeat=1, warm=1)
            rates = [images / result[side][0] for side in sides]
            print(f"{workers:7}{rates[0]:17.0f}{rates[1]:9.0f}{1 / result['wtdiag'][1]:8.3f}", flush=True)


def _write(folder: Path, images: int) -> None:
    """Write the JPEGs: smooth pictures with some noise, at quality 90 about as large as photographs."""
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(DIFFERENT):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(smooth + generator.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        pictures.append(Image.fromarray(noisy))
    for part, count in (("train", images), ("val", CLASSES)):
        for index in range(count):
            file = folder / part / f"class{index % CLASSES}" / f"{index}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            pictures[index % DIFFERENT].save(file, quality=90)


def _plain(folder: Path, workers: int) -> None:
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32),
            v2.Normalize(list(MEAN), list(STD)),
        ]
    )
    loader = DataLoader(ImageFolder(str(folder), transform), batch_size=BATCH, shuffle=True, num_workers=workers)
    for x, _ in loader:
        assert x.dtype == torch.float32


def _ours(split: data.Split, workers: int) -> None:
    for x, _ in data.batches(split, BATCH, seed=0, epoch=0, workers=workers):
        assert x.dtype == torch.float32
