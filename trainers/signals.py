"""The error signals of one forward pass, under the rule and under exact backprop side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.convert import synapses
from trainers.synapse import project

if TYPE_CHECKING:
    from trainers.layers import Synaptic
    from trainers.operations import Operation

Signals = dict[str, dict[str, np.ndarray]]


def error_signals(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Signals:
    """Return each layer's error signals on one batch, by the rule and by exact backprop.

    One forward pass in training mode, then two backward passes that carry errors only: no weight gradient is
    computed. Nothing of the model changes: no weight, no gradient, no batch-norm statistics, no random state.

    Returns
    -------
    dict
        By layer in forward order; each a dict of arrays, examples first: ``delta`` and ``delta_exact``, the error that
        arrives at the layer's output under the rule and under backprop; and, where the layer sends error down,
        ``sent`` = B(delta), ``sent_local`` = W(delta) and ``sent_exact`` = W(delta_exact) with W and B as adjoints.

    Examples
    --------
    >>> from trainers.convert import transport_free
    >>> net = transport_free(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), "fa")
    >>> signals = error_signals(net, torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> {layer: sorted(arrays) for layer, arrays in signals.items()}
    {'0': ['delta', 'delta_exact'], '2': ['delta', 'delta_exact', 'sent', 'sent_exact', 'sent_local']}
    """
    probe = Probe()
    with _undisturbed(model), _attached(model, probe), torch.enable_grad():
        value = loss(model(x), target)
        for probe.exact in (True, False):
            torch.autograd.grad(value, probe.anchors, retain_graph=probe.exact, allow_unused=True)
    names = {layer: name for name, layer in synapses(model)}
    return {
        names[layer]: {
            kind: _array([call[kind] for call in calls], channels_first=layer.op.channels_first)
            for kind in ("delta", "delta_exact", "sent", "sent_local", "sent_exact")
            if all(kind in call for call in calls)
        }
        for layer, calls in probe.calls.items()
    }


def _array(signals: list[Tensor], *, channels_first: bool) -> np.ndarray[Any, Any]:
    """Return the signals of all uses of a layer in one array, units on its axis 1 or -1; of one use without a copy."""
    if len(signals) == 1:
        signal = signals[0]
    elif channels_first:
        signal = torch.cat([signal.flatten(2) for signal in signals], dim=2)
    else:
        signal = torch.cat([signal.reshape(-1, signal.shape[-1]) for signal in signals])
    return signal.to(torch.promote_types(signal.dtype, torch.float32)).cpu().numpy()


class Probe:
    """Stands in for the synapses' backward pass and notes what goes through it."""

    def __init__(self) -> None:
        self.exact = False
        self.calls: dict[Synaptic, list[dict[str, Tensor]]] = {}
        self.anchors: list[Tensor] = []

    def apply(self, layer: Synaptic, x: Tensor, op: Operation) -> Tensor:
        """Run one layer forward; a layer used several times is noted once for each use."""
        call: dict[str, Tensor] = {}
        self.calls.setdefault(layer, []).append(call)
        # What backward is asked for: so no parameter is, frozen layers are reached, and no gradient is left anywhere.
        anchor = x.new_zeros((), requires_grad=True)
        self.anchors.append(anchor)
        y, silent = _ProbedSynapse.apply(anchor, x, layer, op, self, call)
        if layer.error_path is not None:
            layer.error_path.silent.append(silent)
        return y  # type: ignore[no-any-return]


class _ProbedSynapse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, x: Tensor, layer: Synaptic, op: Operation, probe: Probe, call: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        ctx.layer, ctx.op, ctx.probe, ctx.call = layer, op, probe, call
        ctx.save_for_backward(x)
        y = op.apply(x, layer.weight, layer.bias)
        return y, y.new_zeros((x.shape[0], layer.error_path.classes) if layer.error_path else ())

    @staticmethod
    def backward(ctx: Any, dy: Tensor, signal: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        layer, op, call = ctx.layer, ctx.op, ctx.call
        call["delta_exact" if ctx.probe.exact else "delta"] = dy
        if not ctx.needs_input_grad[1]:
            return (None,) * 6
        x = x.to(dy.dtype)
        through_w = op.adjoint(dy, layer.weight.to(dy.dtype), x)
        if ctx.probe.exact:
            call["sent_exact"] = through_w
            return None, through_w, None, None, None, None
        call["sent_local"] = through_w
        if layer.error_path is not None:
            sent = project(signal, layer.feedback, x)
        else:
            sent = op.adjoint(dy, layer.effective_feedback().to(dy.dtype), x)
        call["sent"] = sent
        return None, sent.to(dy.dtype), None, None, None, None


@contextmanager
def _attached(model: nn.Module, probe: Probe) -> Iterator[None]:
    layers = [layer for _, layer in synapses(model)]
    try:
        for layer in layers:
            layer.probe = probe
        yield
    finally:
        for layer in layers:
            layer.probe = None


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Training mode for the duration; buffers, modes and random state are put back afterwards."""
    buffers = {buffer: buffer.clone() for buffer in model.buffers()}
    modes = {module: module.training for module in model.modules()}
    devices = {p.device for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            model.train()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            with torch.no_grad():
                for buffer, value in buffers.items():
                    buffer.copy_(value)
