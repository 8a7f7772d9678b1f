"""Networks in which one block below the last layer is put back, drawn anew or taken out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wtdiag.trainers.layers.convert import copied, synapses
from wtdiag.trainers.observe.blocks import blocks, passing


def lower_blocks(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the names of the blocks below a converted network's last layer, each with those of its modules with state.

    A layer outside of any block is one by itself, with the normalisation that follows it. The order is that of
    registration.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    >>> lower_blocks(transport_free(net, "fa"))
    {'0': ('0', '1')}
    """
    layers = [name for name, _ in synapses(model)]
    holding = set(blocks(model).values())
    named = {name for name, module in model.named_modules() if module in holding}
    found: dict[str, list[str]] = {}
    latest = ""
    for name, module in model.named_modules():
        around = next((block for block in named if name == block or name.startswith(f"{block}.")), "")
        if around or name in layers:
            latest = around or name
        if latest and _own_state(module):
            found.setdefault(latest, []).append(name)
    return {block: tuple(names) for block, names in found.items() if layers[-1] not in names}


def with_block_of(model: nn.Module, other: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """Return a copy of a network in which some modules have the state of those of another one."""
    changed = copied(model)
    with torch.no_grad():
        for name in names:
            states = (_own_state(each.get_submodule(name)) for each in (changed, other))
            for to, new in zip(*states, strict=True):
                to.copy_(new)
    return changed


def without_block(model: nn.Module, block: str, x: Tensor) -> nn.Module | None:
    """Return a copy of a network whose block passes on what enters it, or None if input and output differ in shape."""
    changed = copied(model).eval()
    module = changed.get_submodule(block)
    with torch.no_grad(), passing([module]) as passed:
        changed(x)
    entered, left = passed.get(module, (x, None))
    if left is None or entered.shape != left.shape:
        return None
    # The module stays, because those around it may read what it holds, as nn.TransformerEncoder does.
    module.register_forward_hook(lambda _, args, output: args[0])
    return changed


def _own_state(module: nn.Module) -> list[Tensor]:
    """Return a module's own parameters and buffers, without those of the modules inside it."""
    return [each for each in (*module._parameters.values(), *module._buffers.values()) if each is not None]
