"""A reader of files from `torch.save` that may come from anyone: only plain data and tensors, no larger than the file.

`torch.load` with ``weights_only`` runs no code, but a file of a few kB can make it allocate any amount of memory, by
compressed entries, by tensors larger than their storage, or by a class that takes a size.
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
    """Read the plain data and tensors of a file; the tensors are on the CPU.

    Raises
    ------
    InputError
        If it is not a regular file.
    Exception
        Of any kind, if it is damaged, holds other objects, or would be larger in memory than on the disk.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("an entry is compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries overlap")
        folder = entries[0].filename.partition("/")[0]
        order = f"{folder}/byteorder"
        if order in archive.namelist() and archive.read(order) != sys.byteorder.encode():
            raise ValueError("it was written on a machine of another byte order")
        content = archive.read(f"{folder}/data.pkl")
        _check_opcodes(content)
        value = _PlainUnpickler(archive, folder, content).load()
    _check_plain(value, len(content))
    return value


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows one harmless class and function; storage types are dtypes, which cannot be called."""

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
        raise pickle.UnpicklingError(f"it holds {module}.{name}, but only plain data and tensors are allowed")

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
        raise pickle.UnpicklingError("a storage does not have the dtype and size that its tensor names")


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """Return a view of a storage that lies within it."""
    numbers = (offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
        raise ValueError("a tensor has an impossible shape")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    count = prod(map(int, size))
    if count > storage.numel() or (count and last >= storage.numel()):
        raise ValueError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, offset)


def _check_opcodes(content: bytes) -> None:
    """Require that a pickle uses no more of the unpickler's memory than one of its length can need."""
    if len(content) > LARGEST_TEXT:
        raise ValueError(f"it has more than {LARGEST_TEXT} bytes in addition to its tensors")
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise ValueError("it refers to a memory slot that is out of bounds")


def _check_plain(value: Any, most: int) -> None:
    """Require that data is plain, and that lists which hold the same list many times do not make it grow too large."""
    waiting, seen = [value], 0
    while waiting:
        item = waiting.pop()
        seen += 1
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
        elif not isinstance(item, Tensor | str | bytes | int | float | complex | bool | None):
            raise ValueError(f"it holds {type(item).__name__}, but only plain data and tensors are allowed")
        if seen + len(waiting) > most:
            raise ValueError("its parts refer to each other too often")
