"""PyTorch's linear and bilinear layers with feedback weights of their own, and Hugging Face's ``Conv1D``."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from wtdiag.trainers.layers.conversions import converts
from wtdiag.trainers.layers.operations import Dense, Operation
from wtdiag.trainers.layers.synaptic import Synaptic


@converts(nn.Linear)
class Linear(Synaptic, nn.Linear):
    """`torch.nn.Linear` with feedback weights.

    Examples
    --------
    >>> import torch
    >>> layer = Linear(3, 2, rule="fa", dtype=torch.float64)
    >>> layer
    Linear(in_features=3, out_features=2, bias=True, rule=fa)
    >>> layer.feedback.shape, layer.feedback.requires_grad
    (torch.Size([2, 3]), False)
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self._apply_synapse(input, self.op)

    def _operation(self) -> Operation:
        return Dense()


class OutputProjection(Linear, NonDynamicallyQuantizableLinear):
    """The output projection of `torch.nn.MultiheadAttention`, a `torch.nn.Linear` of its own type."""

    kind = "Linear"


@converts("transformers.pytorch_utils.Conv1D")
class InOut(Synaptic):
    """The linear layer of Hugging Face's GPT-2, whose weight is (in, out), with feedback weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self._apply_synapse(x, self.op)

    def _operation(self) -> Operation:
        return Dense(transposed=True)


@converts(nn.Bilinear)
class Bilinear(Synaptic, nn.Bilinear):
    """`torch.nn.Bilinear` with feedback weights: a linear layer on the products of the two inputs' features.

    The products are formed, (..., in1 · in2), which takes more memory than PyTorch's own layer. B sends an error to
    them, and autograd carries it on to both inputs.
    """

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        products = input1.unsqueeze(-1) * input2.unsqueeze(-2)
        return self._apply_synapse(products.flatten(-2), self.op)

    def _operation(self) -> Operation:
        return Dense()


class TiedEmbedding(nn.Embedding):
    """`torch.nn.Embedding` that shares W with a layer whose B takes its gradient too (Kolen-Pollack)."""

    layer: Linear

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        weight = self.layer.shared_weight()
        return F.embedding(
            input, weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    def tie(self, layer: Linear) -> None:
        """Share the weight of ``layer``, which becomes a plain attribute and not a submodule."""
        object.__setattr__(self, "layer", layer)
