"""The axis of a tensor that counts the examples of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def count_examples(output: Any) -> int | None:
    """Return the number of examples in the network's output (batch, classes), or None if it has no such output."""
    matrices = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.dim() == 2]
    return len(matrices[0]) if matrices else None


def batch_axis_of(shape: Sequence[int], examples: int | None) -> int | None:
    """Return the axis of a layer's input whose size is the number of examples, or None if that is not one axis.

    Examples
    --------
    >>> batch_axis_of((7, 32, 16), 32), batch_axis_of((32, 32, 16), 32)
    (1, None)
    """
    axes = [axis for axis, size in enumerate(shape[:-1]) if size == examples]
    return axes[0] if len(axes) == 1 else None
