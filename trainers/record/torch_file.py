"""Read what `torch.save` wrote, where the file may come from anyone: plain data and tensors, and no more than it holds.

`torch.load` with ``weights_only`` runs no code, but a file of some kB can make it allocate any amount of memory: by
packed entries, by tensors larger than their storage, by a class that takes a size.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
import zipfile
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wtdiag.probes.records.files import LARGEST_TEXT, open_regular

_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


def load(path: Path) -> Any:
    """Read the plain data and tensors of a file, the latter on the CPU.

    Raises
    ------
    InputError
        If it is not a regular file.
    Exception
        Of any kind, if it is damaged, holds anything else, or more in memory than on the disk.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("an entry is packed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries overlap")
        folder = entries[0].filename.partition("/")[0]
        order = f"{folder}/byteorder"
        if order in archive.namelist() and archive.read(order) != sys.byteorder.encode():
            raise ValueError("it was written on a machine of another byte order")
        content = archive.read(f"{folder}/data.pkl")
        _check_opcodes(content)
        value = _Reader(archive, folder, content).load()
    _check_plain(value, len(content))
    return value


class _Reader(pickle.Unpickler):
    """Knows one class and one function, both harmless; storages are names of dtypes, which nothing can call."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}, and not plain data and tensors alone")

    def persistent_load(self, saved: Any) -> Tensor:
        match saved:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count)):
                if key not in self._storages:
                    entry = self._archive.getinfo(f"{self._folder}/data/{key}")
                    content = bytearray(self._archive.read(entry))
                    empty = torch.empty(0, dtype=dtype)
                    self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else empty
                if self._storages[key].dtype == dtype and self._storages[key].numel() == count:
                    return self._storages[key]
        raise pickle.UnpicklingError("a storage is not what its tensor says")


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """Return a view of a storage that lies within it."""
    numbers = (offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
        raise ValueError("a tensor has a shape that cannot be")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    count = prod(map(int, size))
    if count > storage.numel() or (count and last >= storage.numel()):
        raise ValueError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, offset)


def _check_opcodes(content: bytes) -> None:
    """Require places in the unpickler's memory to be such as so short a pickle needs."""
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"it has more than {LARGEST_TEXT} bytes beside its tensors")
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise ValueError("it refers to a place that is out of bounds")


def _check_plain(value: Any, most: int) -> None:
    """Require data to be plain, and not to grow without bounds by lists that hold a list many times."""
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
        elif not isinstance(item, Tensor | str | bytes | int | float | complex | bool | None):
            raise ValueError(f"it holds {type(item).__name__}, and not plain data and tensors alone")
        if seen + len(waiting) > most:
            raise ValueError("its parts refer to each other without end")
