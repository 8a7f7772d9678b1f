"""Peak memory of live tensors in a training step, counted by storage, so that it does not depend on the allocator."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Meter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            self._note(tensor, made=False)  # a storage first seen as an input existed before
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self._note(tensor, made=True)
        return result

    def _note(self, tensor: object, *, made: bool) -> None:
        if not isinstance(tensor, Tensor):
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._seen:
            size = storage.nbytes() if made else 0
            self._seen[key] = size
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._seen.pop(key, 0)


def peak_bytes(step: Callable[[], object]) -> int:
    """Return the most bytes of tensors made within ``step`` that were alive at once."""
    with _Meter() as meter:
        step()
    return meter.peak
