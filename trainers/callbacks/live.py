"""Measures of a network while it trains: two for each layer, at the cost of reading W and B once."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.record.foreign_layers import PairReader
from wtdiag.trainers.record.staging import plain_name


@torch.no_grad()
def live_measures(model: nn.Module, reader: PairReader | None = None) -> dict[str, float]:
    """Return ``weight_angle/<layer>`` in degrees and ``norm_ratio/<layer>`` = ‖B‖ / ‖W‖ of a network as it is now.

    Layers whose W carries the error, and those whose B comes straight from the output, have none. All layers of a
    device are waited for once.

    Parameters
    ----------
    model
        A network from transport_free, or one that other code converted.
    reader
        What reads W and B of the latter.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> net = transport_free(nn.Sequential(nn.Linear(3, 2)), "fa")
    >>> _ = net[0].feedback.data.copy_(2 * net[0].weight)
    >>> measured = live_measures(net)
    >>> round(measured["weight_angle/0"], 1), round(measured["norm_ratio/0"], 3)
    (0.0, 2.0)
    """
    pairs = _converted(model) if reader is None else _of_other_code(model, reader)
    names, sums = [], []
    for name, w, b in pairs:
        w, b = w.flatten().float(), b.flatten().float()
        names.append(name)
        sums.append(torch.stack([w @ b, w @ w, b @ b]))
    measured = {}
    for name, (product, of_w, of_b) in zip(names, torch.stack(sums).tolist() if sums else (), strict=True):
        known = of_w > 0 and of_b > 0 and math.isfinite(of_w + of_b)
        cosine = product / math.sqrt(of_w) / math.sqrt(of_b) if known else math.nan
        measured[f"weight_angle/{name}"] = math.degrees(math.acos(min(1.0, max(-1.0, cosine)))) if known else math.nan
        measured[f"norm_ratio/{name}"] = math.sqrt(of_b / of_w) if of_w > 0 else math.nan
    return measured


def _converted(model: nn.Module) -> Iterable[tuple[str, Tensor, Tensor]]:
    for name, layer in synapses(model):
        if not layer.rule.transports and layer.feedback.shape == layer.weight.shape:
            yield plain_name(name), layer.current("weight"), layer.effective_feedback()


def _of_other_code(model: nn.Module, reader: PairReader) -> Iterable[tuple[str, Tensor, Tensor]]:
    layers, tensors = reader(model)
    for name, layer in layers.items():
        if layer.feedback in tensors and not layer.facts.get("direct"):
            yield name, tensors[layer.forward], tensors[layer.feedback]
