"""How the output's error reaches layers far below: through outputs of theirs that are added to it as zeros."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from probes.errors import InputError


class ErrorPath:
    """Collects the silent outputs of direct layers in a forward pass and adds them to the network's output.

    Examples
    --------
    >>> path = ErrorPath(classes=10)
    >>> path.classes
    10
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.silent: list[Tensor] = []

    def attach(self, model: nn.Module) -> None:
        """Listen to the network whose output error is to be projected."""
        model.register_forward_pre_hook(self._start)
        model.register_forward_hook(self._finish)

    def _start(self, model: nn.Module, inputs: Any) -> None:
        self.silent = []

    def _finish(self, model: nn.Module, inputs: Any, output: Any) -> Any:
        silent, self.silent = self.silent, []
        if not silent:
            return output
        shapes = {tuple(tensor.shape) for tensor in silent}
        leaves, structure = _pytree.tree_flatten(output)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and {tuple(leaf.shape)} == shapes:
                leaves[i] = leaf + sum(silent).to(leaf.dtype)  # type: ignore[union-attr]
                return _pytree.tree_unflatten(leaves, structure)
        found = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)]
        raise InputError(
            f"direct feedback: every layer must see the whole batch and the network must return an output of shape "
            f"(batch, classes) whose error is projected; layers saw {sorted(shapes)}, outputs are {found}. "
            "If only the classes differ, give transport_free(..., classes=…)"
        )
