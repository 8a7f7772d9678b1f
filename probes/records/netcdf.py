"""netCDF-4 files, in which dimensions have names: snapshots by h5py alone, and flat datasets by xarray.

In a snapshot every dtype is stored without loss.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import H5NetCDFStore

from wtdiag.probes.errors import InputError, one_line
from wtdiag.probes.records.files import Stream, open_regular, write_aside

Array = NDArray[Any]
Attribute = str | int | float | Sequence[int]

_NOT_A_VARIABLE = b"This is a netCDF dimension but not a netCDF variable. %10d"  # netCDF-4's own marker
_NETCDF_OWN = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates"}
_FILTERS = range(1, 7)  # the filters that are part of HDF5; others are loaded as plugins
_SPREAD, _LEAST = 32, 2**24  # a file may take this many times its size in memory, or this many bytes if that is more
_TEXT = 64  # bytes that a text takes in addition to its characters
_MOST = 16  # largest number of texts in one attribute


class Group:
    """A group that is being written, by h5py's low-level calls: they take half the time of those of `h5py.Group`."""

    def __init__(self, group_id: h5py.h5g.GroupID, stream: Stream) -> None:
        self.id, self.stream = group_id, stream
        self.scales: dict[str, h5py.h5d.DatasetID] = {}

    def child(self, name: str) -> Group:
        """Make a group in this one."""
        return Group(h5py.h5g.create(self.id, name.encode(), gcpl=_properties("GROUP_CREATE")), self.stream)

    def put_attrs(self, attrs: Mapping[str, Attribute]) -> None:
        """Set attributes of the group."""
        for name, value in attrs.items():
            _put_attr(self.id, name, value)

    def put(self, name: str, array: Array, dims: Sequence[str], dtype: str) -> None:
        """Put an array; ``dtype`` names its torch dtype if the array is a lossless copy in another dtype."""
        stored, attrs = _to_stored(array, dtype)
        dims = (*dims, "re_im")[: stored.ndim]  # a complex number is a pair
        variable = self._create(name, stored.dtype, stored.shape)
        if stored.size:
            self.stream.array = stored.nbytes
            variable.write(h5py.h5s.ALL, h5py.h5s.ALL, np.asarray(stored, order="C"))
            self.stream.offsets.append(variable.get_offset())
        for axis, (dim, size) in enumerate(zip(dims, stored.shape, strict=True)):
            h5py.h5ds.attach_scale(variable, self._scale(dim, size), axis)
        for key, value in attrs.items():
            _put_attr(variable, key, value)

    def put_anonymous(self, name: str, array: Array, dtype: str) -> None:
        """Put an array whose dims have no names of their own: axis 0 of length 64 is called "0=64"."""
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


# HDF5 objects are expensive to make, and never change afterwards.
@lru_cache
def _type(dtype: np.dtype[Any]) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(dtype)


@lru_cache
def _space(shape: tuple[int, ...]) -> h5py.h5s.SpaceID:
    return h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)


@cache
def _properties(kind: str) -> h5py.h5p.PropOCID:
    """Return creation properties with the link order that netCDF-4 needs and without HDF5's time stamps."""
    properties = h5py.h5p.create(getattr(h5py.h5p, kind))
    properties.set_obj_track_times(False)
    if kind != "DATASET_CREATE":
        properties.set_link_creation_order(h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED)
    return properties


def create(stream: Stream) -> h5py.File:
    """Create a file in a stream; the same content gives the same bytes."""
    created = h5py.h5f.create(b"stream", h5py.h5f.ACC_EXCL, fcpl=_properties("FILE_CREATE"), fapl=_access(stream))
    return h5py.File(created)


def _access(stream: Stream) -> h5py.h5p.PropFAID:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, stream)
    return access


class Form:
    """The form of the last file of a series: everything but the values of its arrays and a number.

    HDF5 takes milliseconds to lay out a hundred arrays with their dimensions. A file of the same form as the one before
    is laid out the same, so only its values are written anew, and its bytes are those of a file that is created.
    """

    def __init__(self) -> None:
        self._key = ""
        self._pages: dict[int, bytes] = {}
        self._offsets: list[int] = []
        self._size = 0

    def take(self, key: str, stream: Stream) -> None:
        """Take the form of a file that has just been written into the stream; ``key`` says all that determines it."""
        self._key, self._pages, self._offsets = key, stream.kept(), stream.offsets
        self._size = stream.seek(0, os.SEEK_END)

    def fits(self, key: str) -> bool:
        """Return whether the form is that of a file with this key."""
        return bool(key) and key == self._key

    def fill(self, stream: Stream, arrays: Sequence[tuple[Array, str]], name: str, number: int) -> None:
        """Write a file of this form.

        Parameters
        ----------
        stream
            An empty stream.
        arrays
            The arrays and the names of their dtypes, in the order in which they were put.
        name, number
            An attribute of the root group, and its value in this file.
        """
        stream.restore(self._pages, self._size)
        stored = [_to_stored(array, dtype)[0] for array, dtype in arrays]
        for offset, array in zip(self._offsets, (array for array in stored if array.size), strict=True):
            stream.array = array.nbytes
            stream.seek(offset)
            stream.write(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
        file_id = h5py.h5f.open(b"stream", h5py.h5f.ACC_RDWR, fapl=_access(stream))
        h5py.h5a.open(file_id, name.encode()).write(np.asarray(number))
        file_id.close()


def _to_stored(array: Array, dtype: str) -> tuple[Array, dict[str, str]]:
    """Return the array in a dtype that netCDF has, without loss, and the attrs from which it can be restored."""
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
    """Return whether netCDF and torch both have the dtype; they have no longdouble, texts or objects."""
    return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8) or dtype in ("complex64", "complex128")


class File(h5py.File):  # type: ignore[misc]  # h5py has no types
    """An HDF5 file that may come from anyone, open for reading.

    Raises
    ------
    InputError
        If ``path`` is a link or not a regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        open_regular(path).close()
        super().__init__(path, "r")
        self._read: dict[str, int] = {}

    def member(self, name: str) -> Any:
        """Return the group or variable at the path ``name``.

        Raises
        ------
        InputError
            If a part of the path is a link, within the file or to another one.
        LookupError
            If there is no such group or variable.
        """
        group = self
        for part in name.split("/"):
            if not isinstance(group, h5py.Group) or group.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
                raise InputError(f"{name}: is a link, perhaps to another file; expected it inside")
            group = group[part]
        return group

    def declare(self, name: str, size: int) -> None:
        """Note that ``size`` bytes of a variable are read.

        Raises
        ------
        InputError
            If the variables read so far have more bytes than the file, so that they must share some.
        """
        self._read[name] = size
        if sum(self._read.values()) > self.id.get_filesize():
            raise InputError(f"{name}: its variables have more bytes than the file; expected each to have its own")


def read_variable(file: File, name: str) -> tuple[Array, str]:
    """Read one variable; return the array and the ``dtype`` that `Group.put` was given.

    Raises
    ------
    InputError
        If it is not a plain array whose bytes all lie in ``file``; this is checked before anything is read.
    """
    variable = file.member(name)
    _check_plain(file, name, variable)
    file.declare(name, variable.nbytes)
    stored = np.asarray(variable[()], variable.dtype.newbyteorder("="))  # torch takes the native order only
    attrs = read_attrs(file, variable)
    if "dtype" in attrs:
        return stored.astype(np.bool_), ""
    dtype = str(attrs.get("torch_dtype", ""))
    if dtype.startswith("complex"):
        return stored.view(dtype)[..., 0], ""
    if dtype == "float16":
        return stored.astype(dtype), ""
    return stored, dtype


def _check_plain(file: File, name: str, variable: Any) -> None:
    """Refuse what `Group.put` never writes: a stranger's file may point to other files, or unpack to a huge size."""
    if not isinstance(variable, h5py.Dataset) or variable.shape is None or not _is_numeric(variable.dtype):
        raise InputError(f"{name}: expected an array of numbers")
    if variable.external or variable.is_virtual:
        raise InputError(f"{name}: lies in another file; expected it inside")
    in_one_piece = variable.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
    if not in_one_piece or not variable.id.get_storage_size() == variable.nbytes <= file.id.get_filesize():
        raise InputError(f"{name}: is chunked, compressed or larger than the file; expected its bytes in one piece")


def read_attrs(file: File, owner: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """Read the attributes of a group or variable, except those that netCDF-4 itself adds.

    Raises
    ------
    InputError
        If an attribute is neither numbers nor a text.
    """
    attrs = {}
    for name in owner.attrs:
        if name in _NETCDF_OWN:
            continue
        stored = owner.attrs.get_id(name)
        text = h5py.check_string_dtype(stored.dtype)
        if not (text or stored.dtype.kind in "biuf") or (text and stored.shape):
            raise InputError(f"attribute {name}: expected numbers or a text, got {stored.dtype}")
        attrs[name] = plain(owner.attrs[name])
        if text:
            file.declare(f"{owner.name}@{name}", len(attrs[name]))
    return attrs


def plain(value: Any) -> Any:
    """Turn an HDF5 attribute into a plain number, string or list."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return value.decode() if isinstance(value, bytes) else value


def write_dataset(path: str | os.PathLike[str], dataset: xr.Dataset) -> None:
    """Write a dataset to ``path`` as netCDF-4, atomically: the file is made in memory and written in one piece.

    Raises
    ------
    InputError
        If ``path`` cannot be written.
    """
    with h5py.File("dataset", "w", driver="core", backing_store=False, track_order=True) as file:
        with h5netcdf.File(file, "w") as target:
            dataset.dump_to_store(H5NetCDFStore(target))
        file.flush()
        image = file.id.get_file_image()
    with write_aside(path) as aside:
        aside.write_bytes(image)


def read_dataset(path: str | os.PathLike[str], kind: str, only: Collection[str] = ()) -> xr.Dataset:
    """Read a flat dataset of numbers and texts into memory; the file may come from anyone.

    In memory it may take 32 times the size of the file, or 16 MiB if that is more. If names are given, only the
    variables of these names are read, as far as there are such.

    Raises
    ------
    InputError
        If the file is not a regular file or not netCDF-4, or if it holds links, other types or too much data, which is
        checked before its variables are read. The message names ``kind`` as what it should be.
    """
    try:
        with File(path) as file:
            _check_dataset(file, only)
            known = _variables(file, only)
            if known is not None:
                return xr.decode_cf(xr.Dataset(known, attrs=_plain_attrs(file)), decode_times=False)
            if only:
                _check_dataset(file, ())  # because xarray opens those that it leaves out, too
            left_out = [name for name in file if only and name not in only]
        return xr.load_dataset(path, engine="h5netcdf", decode_times=False, drop_variables=left_out)
    except Exception as error:  # whatever HDF5, h5netcdf and xarray raise for a damaged file
        raise InputError(f"{path}: is not {kind} ({one_line(error, path):.300})") from error


def _variables(file: File, only: Collection[str]) -> dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]] | None:
    """Return dims, values and attributes of the variables of a file as `write_dataset` writes it; None for another.

    h5netcdf looks each dimension of each variable up in the whole file, which for an analysis takes a second.
    """
    scales = {name for name in file if h5py.h5ds.is_scale(file[name].id)}
    named = {h5py.h5o.get_info(file[name].id).addr: name for name in scales}
    found = {}
    for name in [name for name in file if not only or name in only]:
        variable = file[name]
        if name in scales:
            if bytes(variable.attrs.get("NAME", b"")).startswith(_NOT_A_VARIABLE[:50]):
                continue
            dims: tuple[str, ...] = (name,)
        elif variable.ndim:
            listed = variable.attrs.get("DIMENSION_LIST", ())
            if len(listed) != variable.ndim or any(len(each) != 1 for each in listed):
                return None
            dims = tuple(named.get(h5py.h5o.get_info(file[each[0]].id).addr, "") for each in listed)
        else:
            dims = ()
        if len(dims) != variable.ndim or not all(dims) or variable.maxshape != variable.shape:
            return None
        text = h5py.check_string_dtype(variable.dtype)
        if text is not None and text.length is not None:  # characters, of which xarray makes texts
            return None
        values = variable[...] if text is None else np.asarray(variable.asstr()[...]).astype(str)
        found[name] = (dims, values, _plain_attrs(variable))
    return found


def _plain_attrs(owner: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """Return attributes as h5netcdf does: texts, numbers and arrays of several."""
    attrs = {name: owner.attrs[name] for name in owner.attrs if name not in {*_NETCDF_OWN, "_NCProperties"}}
    return {
        name: value[0] if isinstance(value, np.ndarray) and value.shape == (1,) else value
        for name, value in attrs.items()
    }


class _Budget:
    """The memory that the content of a file may still take, in bytes."""

    def __init__(self, file: File) -> None:
        self.size = file.id.get_filesize()
        self.left = max(_SPREAD * self.size, _LEAST)

    def spend(self, name: str, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise InputError(f"{name}: is larger in memory than a file of {self.size} bytes may be")


def _check_dataset(file: File, only: Collection[str]) -> None:
    """Refuse what `write_dataset` never writes, among the variables of these names, or among all if there are none."""
    budget = _Budget(file)
    _check_attrs(file, budget)
    for name in file:
        variable = file.member(name)
        if not isinstance(variable, h5py.Dataset) or variable.shape is None:
            raise InputError(f"{name}: expected a variable")
        if only and name not in only:
            continue
        if variable.external or variable.is_virtual:
            raise InputError(f"{name}: lies in another file; expected it inside")
        _check_attrs(variable, budget)
        if bytes(variable.attrs.get("NAME", b"")).startswith(_NOT_A_VARIABLE[:50]):
            continue  # a dimension that has a size and no values; none of it is read
        text = h5py.check_string_dtype(variable.dtype)
        number = variable.dtype.kind in "biuf" and variable.dtype.itemsize <= 8
        if not (text or number) or h5py.check_enum_dtype(variable.dtype):
            raise InputError(f"{name}: holds {variable.dtype}; expected numbers or texts")
        created = variable.id.get_create_plist()
        if any(created.get_filter(i)[0] not in _FILTERS for i in range(created.get_nfilters())):
            raise InputError(f"{name}: is packed by a filter that is not one of HDF5's own")
        each = _TEXT if text else variable.dtype.itemsize
        budget.spend(name, each * max(variable.size, math.prod(variable.chunks or ())))
        if text and text.length is None:
            _check_texts(variable, budget)


def _check_attrs(owner: h5py.Group | h5py.Dataset, budget: _Budget) -> None:
    """Require attributes to be numbers and texts; any number of texts may share the same bytes of the file."""
    for name in owner.attrs:
        stored = owner.attrs.get_id(name)
        text = h5py.check_string_dtype(stored.dtype)
        if name == "DIMENSION_LIST":
            if len(stored.shape) != 1 or stored.shape[0] > _MOST:
                raise InputError(f"{owner.name}: has a list of dimensions of shape {stored.shape}")
            budget.spend(name, _TEXT * sum(map(len, owner.attrs[name])))
        elif text and text.length is None:
            if math.prod(stored.shape) > _MOST:
                raise InputError(f"{owner.name}: attribute {name} has more than {_MOST} texts")
            budget.spend(name, sum(map(len, np.atleast_1d(owner.attrs[name]))))
        elif not text and stored.dtype.kind not in "biuf" and name not in _NETCDF_OWN:
            raise InputError(f"{owner.name}: attribute {name}: expected numbers or texts, got {stored.dtype}")


def _check_texts(variable: h5py.Dataset, budget: _Budget) -> None:
    """Read the texts of a variable a few at a time, because each may be as long as the file."""
    block = max(1, budget.left // budget.size)
    for start in range(0, variable.size, block):
        if variable.ndim == 1:
            texts = variable[start : start + block]
        else:  # element by element rather than by slices, because a row may be long
            index = np.unravel_index(np.arange(start, min(start + block, variable.size)), variable.shape)
            texts = [variable[at] for at in zip(*index, strict=True)]
        budget.spend(variable.name, sum(map(len, texts)))
