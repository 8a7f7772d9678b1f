"""Bytes that a rule costs beyond backprop, for the table of docs/scale.md: ``python -m bench volume``.

The networks are built on the meta device, which knows sizes and holds no numbers, so that a laptop can count what it
could not hold.
"""

from __future__ import annotations

import torch
import torchvision

from bench.evidence.page import fill, table
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.rules import RULES

PAGE = "scale.md"
NETWORKS = ("resnet18", "resnet50", "vit_b_16")
SIDE, CLASSES, BYTES = 224, 1000, 4


def run() -> None:
    """Count the gradients of a step and the tensors of a snapshot for each rule, and print and write the table."""
    text = table(["rule", *(f"{name}: {what} (MB)" for name in NETWORKS for what in ("gradients", "snapshot"))], rows())
    print(text)
    fill(PAGE, "volume", text)


def rows() -> list[list[str]]:
    """Return a row for each rule."""
    found = []
    for rule in RULES:
        cells = [f"`{rule}`"]
        for name in NETWORKS:
            cells += [f"{size / 1e6:,.0f}" for size in volume(name, rule)]
        found.append(cells)
    return found


def volume(network: str, rule: str) -> tuple[int, int]:
    """Return the bytes of all gradients, which processes that share a batch add up in each step, and of a snapshot."""
    with torch.device("meta"):
        model = torchvision.models.get_model(network, num_classes=CLASSES)
        sample = torch.zeros(2, 3, SIDE, SIDE)
    twin = transport_free(model, rule, sample=sample, classes=CLASSES, batch_axis=0)
    gradients = sum(p.numel() for p in twin.parameters() if p.requires_grad)
    held = {id(tensor): tensor.numel() for tensor in (*twin.parameters(), *twin.buffers())}
    return BYTES * gradients, BYTES * sum(held.values())


if __name__ == "__main__":
    run()
