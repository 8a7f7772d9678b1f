"""Attention whose projections are layers with feedback weights: PyTorch's, and the windows of torchvision's Swin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.conversions import converts
from wtdiag.trainers.layers.matrices import Composite
from wtdiag.trainers.layers.operations import Dense, Gradients, Operation, Rows
from wtdiag.trainers.layers.types.linear import Linear, OutputProjection

_PACKED = {"in_proj": ("in_proj_weight", "in_proj_bias")}
_APART = {name: (f"{name}_weight", None) for name in ("q_proj", "k_proj", "v_proj")}


@converts(nn.MultiheadAttention)
class MultiheadAttention(Composite, nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` whose projections are layers: ``in_proj`` or three of them, and ``out_proj``.

    It computes the same. The projections run in the layout of the inputs, so that their axis of examples is that of
    the network. Attention of a query to other keys uses the rows of ``in_proj`` one part after the other.
    """

    in_proj: Any
    q_proj: Any
    k_proj: Any
    v_proj: Any

    @classmethod
    def matrices(cls, module: Any) -> dict[str, tuple[str, str | None]]:
        return dict(_PACKED if module._qkv_same_embed_dim else _APART)

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        own = _is_own(module.out_proj, NonDynamicallyQuantizableLinear, nn.Linear)
        return None if own else "its out_proj is not PyTorch's own"

    def open(self) -> None:
        super().open()
        plain = type(self.out_proj) is nn.Linear
        self.out_proj.__class__ = Linear if plain else OutputProjection  # type: ignore[assignment]
        self.out_proj.batch_axis = self.axis_of_examples  # type: ignore[assignment]

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if query.is_nested or key.is_nested or value.is_nested:
            raise InputError("MultiheadAttention: nested tensors cannot be converted; pad them")
        batched = query.dim() == 3
        first = self.batch_first or not batched  # whether the axis of examples comes first
        q, k, v = self._projected(query, key, value)
        if not batched:
            q, k, v = q[None], k[None], v[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        mask, is_causal = self._mask(q.dtype, attn_mask, key_padding_mask, need_weights, is_causal)
        q, k, v = (self._heads(each, first) for each in (q, k, v))
        k, v, mask = self._extended(k, v, mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q * math.sqrt(1 / self.head_dim) @ k.transpose(-2, -1)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            found = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            found = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)
        found = found.permute(*((0, 2, 1, 3) if first else (2, 0, 1, 3))).flatten(2)
        if not batched:
            found, weights = found[0], None if weights is None else weights[0]
        return self.out_proj(found), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self._qkv_same_embed_dim:
            q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
            if self.in_proj_bias is not None:
                q, k, v = (x + b for x, b in zip((q, k, v), self.in_proj_bias.chunk(3), strict=True))
            return q, k, v
        if query is key and key is value:
            q, k, v = self.in_proj(query).chunk(3, -1)
            return q, k, v
        size = self.embed_dim
        rows = [Rows(part * size, (part + 1) * size, uses=3) for part in range(3)]
        q, k, v = (self.in_proj(x, op, refresh=not op.start) for x, op in zip((query, key, value), rows, strict=True))
        return q, k, v

    def _heads(self, x: Tensor, first: bool) -> Tensor:
        """Return (example, head, position, feature)."""
        heads = _split(x, 2, self.num_heads, self.head_dim)
        return heads.permute(*((0, 2, 1, 3) if first else (1, 2, 0, 3)))

    def _mask(
        self,
        dtype: torch.dtype,
        attention: Tensor | None,
        padding: Tensor | None,
        need_weights: bool,
        is_causal: bool,
    ) -> tuple[Tensor | None, bool]:
        """Return what is added to the scores, (example, head, query, key) or less, and whether it is causal instead."""
        if is_causal and attention is None:
            raise InputError("MultiheadAttention: is_causal needs attn_mask")
        if is_causal and padding is None and not need_weights:
            return None, True
        mask = None if attention is None else _additive(attention, dtype)
        if mask is not None and mask.dim() == 3:
            mask = _split(mask, 0, -1, self.num_heads)
        if padding is not None:
            apart = _additive(padding, dtype)[:, None, None]
            mask = apart if mask is None else mask + apart
        return mask, False

    def _extended(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return keys, values and mask with the learned key and value and the zeros that the module adds."""
        added = []
        if self.bias_k is not None and self.bias_v is not None:
            added.append(tuple(self._heads(b.expand(len(k), 1, -1), True) for b in (self.bias_k, self.bias_v)))
        if self.add_zero_attn:
            added.append((torch.zeros_like(k[:, :, :1]), torch.zeros_like(v[:, :, :1])))
        for more_k, more_v in added:
            k, v = torch.cat([k, more_k], 2), torch.cat([v, more_v], 2)
            mask = None if mask is None else F.pad(mask, (0, 1))
        return k, v, mask


def _split(x: Tensor, axis: int, *sizes: int) -> Tensor:
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def _windows(x: Tensor, height: int, width: int) -> Tensor:
    """Return (example, window, position, feature) of a map (example, y, x, feature)."""
    rows = _split(x, 1, x.shape[1] // height, height)
    return _split(rows, 3, x.shape[2] // width, width).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _is_own(module: nn.Module, *kinds: type) -> bool:
    return type(module) in kinds and "forward" not in vars(module)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)
    return mask.to(dtype)


@converts(nn.TransformerEncoderLayer)
class TransformerEncoderLayer(Composite, nn.TransformerEncoderLayer):
    """`torch.nn.TransformerEncoderLayer` without the fast path of inference, which goes past its layers."""

    @property
    def activation_relu_or_gelu(self) -> int:  # type: ignore[override]
        """Zero, with which PyTorch takes the path through the layers."""
        return 0


@converts(nn.TransformerEncoder)
class TransformerEncoder(Composite, nn.TransformerEncoder):
    """`torch.nn.TransformerEncoder` without nested tensors, which only the fast path of its layers can take."""

    @property
    def use_nested_tensor(self) -> bool:  # type: ignore[override]
        """False."""
        return False


@dataclass(frozen=True)
class _KeysWithoutBias(Dense):
    """A linear layer for queries, keys and values whose bias does not reach the keys."""

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return super().apply(x, weight, _without_keys(bias))

    def backward(self, dy: Tensor, x: Tensor, feedback: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        dx, dw, dbias = super().backward(dy, x, feedback, wanted)
        return dx, dw, _without_keys(dbias)

    def without_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        return super().without_bias(y, _without_keys(bias))


def _without_keys(bias: Tensor | None) -> Tensor | None:
    if bias is None:
        return None
    q, k, v = bias.chunk(3)
    return torch.cat([q, torch.zeros_like(k), v])


class KeysWithoutBias(Linear):
    """The layer ``qkv`` of the second version of Swin."""

    def _operation(self) -> Operation:
        return _KeysWithoutBias()


@converts(
    "torchvision.models.swin_transformer.ShiftedWindowAttention",
    "torchvision.models.swin_transformer.ShiftedWindowAttentionV2",
)
class WindowAttention(Composite):
    """Torchvision's attention within shifted windows, which calls its layers ``qkv`` and ``proj``.

    It computes the same. The layers see (example, window, position, feature).

    References
    ----------
    Liu et al. 2021, "Swin Transformer", arXiv:2103.14030, and 2022, "Swin Transformer V2", arXiv:2111.09883.
    """

    window_size: list[int]
    shift_size: list[int]
    num_heads: int
    attention_dropout: float
    dropout: float
    qkv: Any
    proj: Any
    get_relative_position_bias: Any

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        own = (_is_own(module.qkv, nn.Linear), _is_own(module.proj, nn.Linear))
        return None if all(own) else "its qkv or proj is not PyTorch's own"

    def open(self) -> None:
        super().open()
        self.qkv.__class__ = self.proj.__class__ = Linear
        if hasattr(self, "logit_scale"):  # of the second version, whose keys have no bias
            self.qkv.__class__ = KeysWithoutBias
        self.qkv.batch_axis = self.proj.batch_axis = 0

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        wh, ww = self.window_size
        padded = [-(-height // wh) * wh, -(-width // ww) * ww]
        x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
        # A window as large as the map has nowhere to be shifted to.
        shift = [0 if w >= n else s for s, w, n in zip(self.shift_size, self.window_size, padded, strict=True)]
        x = x.roll((-shift[0], -shift[1]), (1, 2)) if any(shift) else x
        x = _windows(x, wh, ww)

        qkv = _split(self.qkv(x), 3, 3, self.num_heads, channels // self.num_heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (example, window, head, position, feature)
        scale = getattr(self, "logit_scale", None)
        if scale is not None:
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
            scores = scores * scale.clamp(max=math.log(100.0)).exp()
        else:
            scores = q * (channels // self.num_heads) ** -0.5 @ k.transpose(-2, -1)
        scores = scores + self.get_relative_position_bias()
        if any(shift):
            scores = scores + self._apart(x, padded, shift)[:, None]
        weights = F.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        x = F.dropout(self.proj((weights @ v).transpose(2, 3).flatten(3)), self.dropout, self.training)

        x = _split(_split(x, 1, padded[0] // wh, padded[1] // ww), 3, wh, ww)
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        x = x.roll((shift[0], shift[1]), (1, 2)) if any(shift) else x
        return x[:, :height, :width].contiguous()

    def _apart(self, x: Tensor, padded: list[int], shift: list[int]) -> Tensor:
        """Return −100 between positions of one window that were no neighbours before the shift, (window, ., .)."""
        region = x.new_zeros(padded)
        ends = [
            ((0, n - w), (n - w, n - s), (n - s, n)) for n, w, s in zip(padded, self.window_size, shift, strict=True)
        ]
        for number, ((top, bottom), (left, right)) in enumerate(product(*ends)):
            region[top:bottom, left:right] = number
        region = _windows(region[None, :, :, None], *self.window_size)[0, :, :, 0]
        return x.new_zeros(()).where(region[:, None] == region[:, :, None], -100.0)
