"""PyTorch's recurrent networks and their cells, unrolled, with a layer for each of their matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.conversions import converts
from wtdiag.trainers.layers.matrices import Composite, Matrix
from wtdiag.trainers.layers.operations import Dense

State = tuple[Tensor, ...]  # h, and c of an LSTM; the network's (layer, example, unit), a cell's (example, unit)
Step = Callable[[Tensor, Tensor, State], State]


def lstm(x: Tensor, h: Tensor, state: State) -> State:
    """Return (h, c) of the next step from W x + b, W h + b and (h, c)."""
    i, f, g, o = (x + h).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru(x: Tensor, h: Tensor, state: State) -> State:
    """Return (h,) of the next step from W x + b, W h + b and (h,)."""
    (rx, zx, nx), (rh, zh, nh) = x.chunk(3, -1), h.chunk(3, -1)
    n = (nx + (rx + rh).sigmoid() * nh).tanh()
    z = (zx + zh).sigmoid()
    return ((1 - z) * n + z * state[0],)


_STEPS: dict[str, Step] = {
    "LSTM": lstm,
    "GRU": gru,
    "RNN_TANH": lambda x, h, state: ((x + h).tanh(),),
    "RNN_RELU": lambda x, h, state: ((x + h).relu(),),
}


class _Recurrent(Composite):
    """Recurrent networks with a layer for each matrix: ``ih_l0`` and ``hh_l0``, of further layers and directions alike.

    They compute the same as PyTorch's, several times slower, because each step is a call of its own. ``ih`` sees the
    whole sequence at once. ``hh`` is used once for each step, and its uses make up one pass: of what is averaged over
    positions, each step brings its part.
    """

    mode: str
    num_layers: int
    bidirectional: bool
    batch_first: bool
    bias: bool
    dropout: float
    hidden_size: int
    proj_size: int

    @classmethod
    def matrices(cls, module: Any) -> dict[str, tuple[str, str | None]]:
        found: dict[str, tuple[str, str | None]] = {}
        for names in module._all_weights:
            for name in names:
                if name.startswith("weight_"):
                    label = name.removeprefix("weight_")
                    bias = f"bias_{label}"
                    found[label] = (name, bias if bias in names else None)
        return found

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002
        packed = isinstance(input, PackedSequence)
        x: Tensor = input.data if packed else input
        batched, counts = packed or x.dim() == 3, None
        if packed:
            for rule in (layer.rule for layer in self._modules.values() if isinstance(layer, Matrix)):
                if rule.counts_examples:
                    raise InputError(f"{rule.name}: packed sequences have no axis of examples, which the rule needs")
            counts = input.batch_sizes.tolist()
        elif x.dim() not in (2, 3):
            raise InputError(f"{type(self).__name__}: expected an input of 2 or 3 dims, got {x.dim()}")
        elif not batched:
            x = x.unsqueeze(0 if self.batch_first else 1)
        state = self._initial(x, hx, counts, batched, input.sorted_indices if packed else None)
        outputs: Any
        outputs, finals = self._layers(x, state, counts)
        if packed:
            order = input.unsorted_indices
            finals = finals if order is None else tuple(part.index_select(1, order) for part in finals)
            outputs = PackedSequence(outputs, input.batch_sizes, input.sorted_indices, order)
        elif not batched:
            outputs = outputs.squeeze(0 if self.batch_first else 1)
            finals = tuple(part.squeeze(1) for part in finals)
        return outputs, finals if self.mode == "LSTM" else finals[0]

    def _initial(self, x: Tensor, hx: Any, counts: list[int] | None, batched: bool, order: Tensor | None) -> State:
        """Return the initial state, (layer and direction, example, unit)."""
        directions = self.num_layers * (1 + self.bidirectional)
        examples = counts[0] if counts is not None else x.shape[0 if self.batch_first else 1]
        sizes = [self.proj_size or self.hidden_size] + [self.hidden_size] * (self.mode == "LSTM")
        if hx is None:
            return tuple(x.new_zeros(directions, examples, size) for size in sizes)
        state = tuple(hx) if self.mode == "LSTM" else (hx,)
        state = state if batched else tuple(part.unsqueeze(1) for part in state)
        for part, size in zip(state, sizes, strict=True):
            if part.shape != (directions, examples, size):
                raise InputError(
                    f"{type(self).__name__}: expected an initial state of shape {(directions, examples, size)}, "
                    f"got {tuple(part.shape)}"
                )
        return state if order is None else tuple(part.index_select(1, order) for part in state)

    def _layers(self, x: Tensor, state: State, counts: list[int] | None) -> tuple[Tensor, State]:
        finals: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = F.dropout(x, self.dropout)
            sides = []
            for reverse in range(1 + self.bidirectional):
                first = tuple(part[len(finals)] for part in state)
                output, final = self._unrolled(x, first, f"l{layer}{'_reverse' * reverse}", bool(reverse), counts)
                sides.append(output)
                finals.append(final)
            x = torch.cat(sides, -1) if self.bidirectional else sides[0]
        return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _unrolled(
        self, x: Tensor, state: State, label: str, reverse: bool, counts: list[int] | None
    ) -> tuple[Tensor, State]:
        """Return the outputs of one layer in one direction, in the layout of its inputs, and its last state."""
        step, hidden = _STEPS[self.mode], self._modules[f"hh_{label}"]
        projection = self._modules.get(f"hr_{label}")
        seen = self._modules[f"ih_{label}"](x)  # type: ignore[misc]
        parts: Sequence[Tensor]
        parts = seen.split(counts) if counts is not None else seen.unbind(1 if self.batch_first else 0)
        op = Dense(uses=len(parts))
        outputs: list[Tensor] = []
        ended: list[State] = []  # the last states of sequences that end before others, the shortest first
        whole = state
        if counts is not None and reverse:  # the longest sequences begin
            state = tuple(part[: counts[-1]] for part in state)
        for number, part in enumerate(reversed(parts) if reverse else parts):
            now = len(state[0])
            if len(part) < now:
                ended.append(tuple(each[len(part) :] for each in state))
                state = tuple(each[: len(part)] for each in state)
            elif len(part) > now:
                state = tuple(
                    torch.cat([each, begin[now : len(part)]]) for each, begin in zip(state, whole, strict=True)
                )
            state = step(part, hidden(state[0], op, refresh=not number), state)  # type: ignore[misc]
            if projection is not None:
                state = (projection(state[0], op, refresh=not number), *state[1:])
            outputs.append(state[0])
        for end in reversed(ended):
            state = tuple(torch.cat(both) for both in zip(state, end, strict=True))
        outputs = outputs[::-1] if reverse else outputs
        if counts is not None:
            return torch.cat(outputs), state
        return torch.stack(outputs, 1 if self.batch_first else 0), state


@converts(nn.RNN)
class RNN(_Recurrent, nn.RNN):
    """`torch.nn.RNN`, unrolled, with feedback weights for each matrix."""


@converts(nn.LSTM)
class LSTM(_Recurrent, nn.LSTM):
    """`torch.nn.LSTM`, unrolled, with feedback weights for each matrix; ``hr_l0`` is that of ``proj_size``."""


@converts(nn.GRU)
class GRU(_Recurrent, nn.GRU):
    """`torch.nn.GRU`, unrolled, with feedback weights for each matrix."""


class _Cell(Composite):
    """Cells of recurrent networks with the layers ``ih`` and ``hh``; a loop's uses add their local gradients."""

    hidden_size: int

    @classmethod
    def matrices(cls, module: Any) -> dict[str, tuple[str, str | None]]:
        return {side: (f"weight_{side}", f"bias_{side}" if module.bias else None) for side in ("ih", "hh")}

    def forward(self, input: Tensor, hx: Any = None) -> Any:  # noqa: A002
        batched, is_lstm = input.dim() == 2, self._mode == "LSTM"
        x = input if batched else input[None]
        if hx is None:
            state: State = (x.new_zeros(len(x), self.hidden_size),) * (1 + is_lstm)
        else:
            state = tuple(hx) if is_lstm else (hx,)
            state = state if batched else tuple(part[None] for part in state)
        state = _STEPS[self._mode](self._modules["ih"](x), self._modules["hh"](state[0]), state)  # type: ignore[misc]
        state = state if batched else tuple(part[0] for part in state)
        return state if is_lstm else state[0]

    @property
    def _mode(self) -> str:
        raise NotImplementedError


@converts(nn.RNNCell)
class RNNCell(_Cell, nn.RNNCell):
    """`torch.nn.RNNCell` with feedback weights for both matrices."""

    @property
    def _mode(self) -> str:
        return f"RNN_{self.nonlinearity.upper()}"


@converts(nn.LSTMCell)
class LSTMCell(_Cell, nn.LSTMCell):
    """`torch.nn.LSTMCell` with feedback weights for both matrices."""

    _mode = "LSTM"


@converts(nn.GRUCell)
class GRUCell(_Cell, nn.GRUCell):
    """`torch.nn.GRUCell` with feedback weights for both matrices."""

    _mode = "GRU"
