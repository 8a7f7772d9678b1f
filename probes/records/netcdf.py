"""netCDF-4 files by h5py alone: named dimensions, and every dtype there and back without loss."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.errors import InputError

Array = NDArray[Any]
Attribute = str | int | float | Sequence[int]

_NOT_A_VARIABLE = b"This is a netCDF dimension but not a netCDF variable. %10d"  # netCDF-4's own marker


class Group:
    """A group being written: h5py's low-level calls, which take half the time of `h5py.Group`'s own."""

    def __init__(self, group_id: h5py.h5g.GroupID) -> None:
        self.id = group_id
        self.scales: dict[str, h5py.h5d.DatasetID] = {}

    def child(self, name: str) -> Group:
        """Make a group in this one."""
        return Group(h5py.h5g.create(self.id, name.encode(), gcpl=_properties("GROUP_CREATE")))

    def put_attrs(self, attrs: Mapping[str, Attribute]) -> None:
        """Set attributes of the group."""
        for name, value in attrs.items():
            _put_attr(self.id, name, value)

    def put(self, name: str, array: Array, dims: Sequence[str], dtype: str) -> None:
        """Put an array; ``dtype`` names its torch dtype if the array is only a lossless copy in another."""
        stored, attrs = _to_stored(array, dtype)
        dims = (*dims, "re_im")[: stored.ndim]  # a complex number is a pair
        variable = self._create(name, stored.dtype, stored.shape)
        if stored.size:
            variable.write(h5py.h5s.ALL, h5py.h5s.ALL, np.asarray(stored, order="C"))
        for axis, (dim, size) in enumerate(zip(dims, stored.shape, strict=True)):
            h5py.h5ds.attach_scale(variable, self._scale(dim, size), axis)
        for key, value in attrs.items():
            _put_attr(variable, key, value)

    def put_anonymous(self, name: str, array: Array, dtype: str) -> None:
        """Put an array whose dims have no meaning: axis 0 of length 64 is called "0=64"."""
        self.put(name, array, [f"{axis}={size}" for axis, size in enumerate(array.shape)], dtype)

    def _scale(self, dim: str, size: int) -> h5py.h5d.DatasetID:
        if dim not in self.scales:
            self.scales[dim] = self._create(dim, np.dtype(">f4"), (size,))
            h5py.h5ds.set_scale(self.scales[dim], _NOT_A_VARIABLE % size)
        return self.scales[dim]

    def _create(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> h5py.h5d.DatasetID:
        return h5py.h5d.create(self.id, name.encode(), _type(dtype), _space(shape), _properties("DATASET_CREATE"))


def _put_attr(owner: h5py.h5g.GroupID | h5py.h5d.DatasetID, name: str, value: Attribute) -> None:
    array = np.asarray(value.encode() if isinstance(value, str) else value)
    h5py.h5a.create(owner, name.encode(), _type(array.dtype), _space(array.shape)).write(array)


# HDF5 objects are dear to make and never change once made.
@lru_cache
def _type(dtype: np.dtype[Any]) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(dtype)


@lru_cache
def _space(shape: tuple[int, ...]) -> h5py.h5s.SpaceID:
    return h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)


@cache
def _properties(kind: str) -> h5py.h5p.PropOCID:
    """Make creation properties with the link order that netCDF-4 needs and without HDF5's time stamps."""
    properties = h5py.h5p.create(getattr(h5py.h5p, kind))
    properties.set_obj_track_times(False)
    if kind != "DATASET_CREATE":
        properties.set_link_creation_order(h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED)
    return properties


def create(path: Path) -> h5py.File:
    """Create a file, the same bytes for the same content."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    created = h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_EXCL, fcpl=_properties("FILE_CREATE"), fapl=access)
    return h5py.File(created)


def _to_stored(array: Array, dtype: str) -> tuple[Array, dict[str, str]]:
    """Give the array in a dtype that netCDF has, losslessly, and the attrs that tell how to undo it."""
    if not _is_numeric(array.dtype):
        raise InputError(f"snapshot: dtype {array.dtype} cannot be stored; expected numbers or booleans")
    if array.dtype == np.bool_:
        return array.view(np.int8), {"dtype": "bool"}  # xarray's own convention
    if array.dtype.kind == "c":
        pairs = np.asarray(array, order="C")[..., None].view(array.real.dtype)
        return pairs, {"torch_dtype": str(array.dtype)}
    if array.dtype == np.float16:
        return array.astype(np.float32), {"torch_dtype": "float16"}
    return array, {"torch_dtype": dtype} if dtype else {}


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether netCDF and torch can both hold it: longdouble, texts and objects they cannot."""
    return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8) or dtype in ("complex64", "complex128")


def read_variable(file: h5py.File, name: str) -> tuple[Array, str]:
    """Read one variable as it was given to `Group.put`, with ``dtype``.

    Raises
    ------
    InputError
        Before anything is read, if that is not a plain array whose bytes all lie in ``file``.
    """
    variable = file[name]
    _check_plain(file, name, variable)
    stored = np.asarray(variable[()], variable.dtype.newbyteorder("="))  # torch takes the native order only
    if "dtype" in variable.attrs:
        return stored.astype(np.bool_), ""
    dtype = str(plain(variable.attrs.get("torch_dtype", "")))
    if dtype.startswith("complex"):
        return stored.view(dtype)[..., 0], ""
    if dtype == "float16":
        return stored.astype(dtype), ""
    return stored, dtype


def _check_plain(file: h5py.File, name: str, variable: Any) -> None:
    """Refuse what `Group.put` never writes: a stranger's file may point at files of the reader, or be a bomb."""
    if not isinstance(variable, h5py.Dataset) or variable.shape is None or not _is_numeric(variable.dtype):
        raise InputError(f"{name}: expected an array of numbers")
    if variable.external or variable.is_virtual or variable.file.filename != file.filename:
        raise InputError(f"{name}: lies in another file; expected it inside")
    in_one_piece = variable.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
    if not in_one_piece or not variable.id.get_storage_size() == variable.nbytes <= file.id.get_filesize():
        raise InputError(f"{name}: is chunked, compressed or larger than the file; expected its bytes in one piece")


def plain(value: Any) -> Any:
    """Turn an HDF5 attribute into a plain number, string or list."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return value.decode() if isinstance(value, bytes) else value
