"""Networks that read an image, or a sequence, as a row of tokens: a transformer and a recurrent network.

A sequence is an image one pixel wide: (features, steps, 1).
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError

_HEADS = 4
_PATCH = 4


class Transformer(nn.Module):
    """A transformer: a vision transformer on the patches of an image, an encoder on the steps of a sequence.

    ``depth`` blocks of pre-norm attention with four heads and of a perceptron twice as wide, between an embedding of
    the patches with learned positions and a linear layer on the mean over all tokens. A patch has the largest side up
    to 4 that divides the image. There is no dropout, and nothing for ``batch_norm`` to switch off.

    References
    ----------
    Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv:2010.11929.
    """

    def __init__(
        self, *, classes: int, shape: tuple[int, int, int], depth: int = 2, width: int = 32, batch_norm: bool = True
    ) -> None:
        super().__init__()
        if width % _HEADS:
            raise InputError(f"width: {width} is not divisible by the {_HEADS} heads of 'transformer'")
        channels, height, breadth = shape
        side = max(n for n in range(1, _PATCH + 1) if gcd(height, breadth) % n == 0)
        self.embed = nn.Conv2d(channels, width, side, stride=side)
        self.positions = nn.Parameter(torch.randn(1, height // side * (breadth // side), width) * 0.02)
        block = nn.TransformerEncoderLayer(width, _HEADS, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        for layer in self.encoder.layers:  # PyTorch makes them copies of one another
            for p in layer.parameters():
                if p.dim() > 1:
                    nn.init.xavier_uniform_(p)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, C, H, W) to logits (n, classes)."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        return self.fc(self.encoder(tokens).mean(1))  # type: ignore[no-any-return]


class RowLSTM(nn.Module):
    """A network of ``depth`` LSTM layers that reads an image row by row, and a linear layer on its last output.

    References
    ----------
    Hochreiter & Schmidhuber 1997, "Long short-term memory", Neural Computation 9(8).
    """

    def __init__(
        self, *, classes: int, shape: tuple[int, int, int], depth: int = 1, width: int = 64, batch_norm: bool = True
    ) -> None:
        super().__init__()
        channels, _, breadth = shape
        self.lstm = nn.LSTM(channels * breadth, width, depth, batch_first=True)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, C, H, W) to logits (n, classes)."""
        rows = x.transpose(1, 2).flatten(2)
        return self.fc(self.lstm(rows)[0][:, -1])  # type: ignore[no-any-return]
