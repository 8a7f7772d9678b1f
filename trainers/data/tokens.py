"""Sequences without files: rows of digits, recall of a copied symbol, and the adding problem.

A sequence is an image one pixel wide: (features, steps, 1). Networks answer with one class, so copying asks for one of
the symbols, and adding for the sum rounded to a quarter.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from wtdiag.trainers.data.builtin import digits
from wtdiag.trainers.data.splits import ArraySplit, Data, array_data

_TRAIN, _TEST = 4000, 1000
_SYMBOLS, _SHOWN, _BLANK = 8, 4, 5
_STEPS = 20


def rows() -> Data:
    """Return scikit-learn's digits as sequences of their eight rows, each of eight pixels: 8x8x1."""
    parts = []
    for split in (whole := digits()).train, whole.test:
        assert isinstance(split, ArraySplit)
        parts.append((split.images.permute(0, 3, 2, 1).contiguous(), split.targets))
    train, test = parts
    return array_data("rows", train, test, classes=whole.classes)


def copying() -> Data:
    """Return the copy task, 12x10x1: four symbols of eight, five blank steps, and the place of the symbol to name.

    Features 0 to 7 are the symbol, and 8 to 11 the place that the last step asks for.

    References
    ----------
    Hochreiter & Schmidhuber 1997, "Long short-term memory", Neural Computation 9(8).
    """
    drawn = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[Tensor, Tensor]:
        symbols = torch.randint(_SYMBOLS, (count, _SHOWN), generator=drawn)
        asked = torch.randint(_SHOWN, (count,), generator=drawn)
        steps = torch.zeros(count, _SHOWN + _BLANK + 1, _SYMBOLS + _SHOWN, dtype=torch.uint8)
        steps[:, :_SHOWN, :_SYMBOLS] = one_hot(symbols, _SYMBOLS)
        steps[:, -1, _SYMBOLS:] = one_hot(asked, _SHOWN)
        return _images(steps), symbols.gather(1, asked[:, None])[:, 0]

    return array_data("copy", part(_TRAIN), part(_TEST), classes=_SYMBOLS)


def adding() -> Data:
    """Return the adding problem, 2x20x1: random numbers from 0 to 1, of which two are marked.

    The class is four times the sum of both, rounded: 0 to 8.

    References
    ----------
    Hochreiter & Schmidhuber 1997, "Long short-term memory", Neural Computation 9(8), task 4.
    """
    drawn = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[Tensor, Tensor]:
        values = torch.randint(256, (count, _STEPS), generator=drawn)
        halves = torch.randint(_STEPS // 2, (count, 2), generator=drawn) + torch.tensor([0, _STEPS // 2])
        marks = torch.zeros(count, _STEPS, dtype=torch.int64).scatter_(1, halves, 1)
        total = (values * marks).sum(1) / 255
        return _images(torch.stack([values, 255 * marks], 2).to(torch.uint8)), (4 * total).round().long()

    return array_data("adding", part(_TRAIN), part(_TEST), classes=9)


def _images(steps: Tensor) -> Tensor:
    """Return (example, feature, step, 1) of (example, step, feature)."""
    return steps.transpose(1, 2).unsqueeze(-1).contiguous()
