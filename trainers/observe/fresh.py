"""The network's signals under feedback that is drawn afresh, which tell what each angle is by chance."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.observe.inputs import Inputs, output_of

if TYPE_CHECKING:
    from wtdiag.trainers.layers.synaptic import Synaptic
    from wtdiag.trainers.observe.tracer import Call, Error, Loss

DRAWS = 8
"""Number of draws of B, which are the same for every snapshot."""

Angles = dict[str, list[float]]


class FreshAngles:
    """Angles of a layer's signals under fresh random feedback; all layers are measured when the first is asked for.

    Feedback that transports W stays as it is, unless it does so in every layer.
    """

    def __init__(self, model: nn.Module, x: Inputs, target: Tensor, loss: Loss) -> None:
        self._given = model, x, target, loss
        self._lock = threading.Lock()
        self._found: dict[str, Angles] | None = None

    def __call__(self, layer: str) -> Mapping[str, list[float]]:
        """Return by name the angles of a layer, one for each draw."""
        with self._lock:  # the layers of a snapshot are measured in parallel
            if self._found is None:
                self._found = self._measure()
        return self._found.get(layer, {})

    def _measure(self) -> dict[str, Angles]:
        from wtdiag.trainers.observe.tracer import sharing, tracing, weight_gradient_of

        model, x, target, loss = self._given
        names = {layer: name for name, layer in synapses(model)}
        found: dict[str, Angles] = {name: {} for name in names.values()}
        with tracing(model) as tracer, torch.enable_grad():
            value = loss(output_of(model, x), target)
            exact, _ = tracer.backward(value, exact=tracer.calls)
            calls = tracer.calls
            with torch.no_grad():
                gradients = {layer: weight_gradient_of(sharing(layer, calls), calls, exact) for layer in calls}
            for draw in range(DRAWS):
                tracer.fresh = drawn(list(names), draw)
                ruled, _ = tracer.backward(value, exact=())
                with torch.no_grad():
                    for layer in calls:
                        angles = dict(_angles(layer, calls[layer], exact[layer], ruled[layer], tracer.fresh))
                        gradient = weight_gradient_of(sharing(layer, calls), calls, ruled)
                        if gradient is not None and (right := gradients[layer]) is not None:
                            angles["weight_gradient_angle"] = _angle([right], [gradient])
                        for kind, angle in angles.items():
                            found[names[layer]].setdefault(kind, []).append(angle)
        return found


def drawn(layers: list[Synaptic], seed: int) -> dict[Synaptic, Tensor]:
    """Return by layer a Gaussian matrix with the shape and the norm of its B."""
    some = any(not layer.rule.transports for layer in layers)
    matrices = {}
    for place, layer in enumerate(layers):
        if layer.rule.transports and some:
            continue
        b = layer.feedback if layer.error_path is not None else layer.effective_feedback()
        generator = torch.Generator().manual_seed(1_000_003 * seed + place)
        noise = torch.randn(b.shape, generator=generator, dtype=torch.float64).to(b.device)
        matrices[layer] = (noise * (b.double().norm() / noise.norm())).to(b.dtype)
    return matrices


def _angles(
    layer: Synaptic, calls: list[Call], exact: list[Error], ruled: list[Error], fresh: Mapping[Synaptic, Tensor]
) -> Iterator[tuple[str, float]]:
    """Yield the angles of one layer, over all its uses, by the names of their probes."""
    pairs: dict[str, list[tuple[Tensor | None, Tensor | None]]] = {}
    for call, right, ours in zip(calls, exact, ruled, strict=True):
        local = None
        if ours.delta is not None and ours.sent is not None:
            local = call.op.adjoint(ours.delta, call.weight.to(ours.delta.dtype), call.x)
        pairs.setdefault("error_angle", []).append((right.delta, ours.delta))
        pairs.setdefault("error_angle_local", []).append((local, ours.sent))
        pairs.setdefault("error_angle_inherited", []).append((right.sent, local))
        pairs.setdefault("error_angle_total", []).append((right.sent, ours.sent))
        if layer.error_path is None and layer in fresh:
            projections = [call.op.apply(call.x, w.to(call.x.dtype)) for w in (call.weight, fresh[layer])]
            pairs.setdefault("projection_angle", []).append((projections[0], projections[1]))
    for name, uses in pairs.items():
        known = [(first, second) for first, second in uses if first is not None and second is not None]
        if len(known) == len(uses):
            yield name, _angle([first for first, _ in known], [second for _, second in known])


def _angle(first: list[Tensor], second: list[Tensor]) -> float:
    """Return the angle between two signals in degrees; NaN if one is zero or not finite."""
    a, b = (torch.cat([part.flatten().double() for part in parts]) for parts in (first, second))
    sizes = a.abs().max(), b.abs().max()
    if not all(bool(torch.isfinite(size)) and float(size) for size in sizes):
        return math.nan
    a, b = a / sizes[0], b / sizes[1]
    cosine = float(a @ b / (a.norm() * b.norm()))
    return math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))
