"""Ways to damage the files of a run, a study or a user, each a function of a path and a random generator."""

import json
import os
import pickle
import shutil
import zipfile

import h5py
import numpy as np
import scipy.io
import torch

SECRET = 31337.5
"""Number in the file outside; nothing that is read or written may hold it."""
EVIL = "<script>evil()</script>"


def outside(path):
    """Return the folder beside the case that nothing may be read from or written into."""
    return next(parent for parent in path.parents if (parent / "outside").is_dir()) / "outside"


# Any file


def flip(path, random):
    """Change some bytes."""
    content = bytearray(path.read_bytes())
    for _ in range(random.integers(1, 20)):
        if content:
            content[random.integers(len(content))] = random.integers(256)
    path.write_bytes(content)


def truncate(path, random):
    """Cut the end off."""
    os.truncate(path, random.integers(path.stat().st_size + 1))


def insert(path, random):
    """Put some bytes in."""
    content, at = path.read_bytes(), random.integers(path.stat().st_size + 1)
    path.write_bytes(content[:at] + random.bytes(random.integers(1, 200)) + content[at:])


def repeat(path, random):
    """Write the content twice."""
    path.write_bytes(path.read_bytes() * 2)


def noise(path, random):
    """Put noise in its place."""
    path.write_bytes(random.bytes(random.integers(0, 5000)))


def sparse(path, random):
    """Put a file of many zeros in its place, which take no space on the disk."""
    os.truncate(path, 2**36)


def remove(path, random):
    """Remove it."""
    path.unlink()


def folder(path, random):
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()


def pipe(path, random):
    """Put a pipe in its place."""
    path.unlink()
    os.mkfifo(path)


def device(path, random):
    """Put a link to a device in its place."""
    path.unlink()
    path.symlink_to(random.choice(["/dev/zero", "/dev/full", "/dev/tty", "/dev/urandom"]))


def link_out(path, random):
    """Move it out of the run, and leave a link."""
    target = outside(path) / path.name
    shutil.copy(path, target)
    path.unlink()
    path.symlink_to(target)


def link_to_itself(path, random):
    """Put a link to itself in its place."""
    path.unlink()
    path.symlink_to(path.name)


ANY = [flip, flip, truncate, insert, repeat, noise, sparse, remove, folder, pipe, device, link_out, link_to_itself]

# Plain data

ODD = [
    None, True, False, -1, 0, 1, 2**31, 2**63, -(2**63) - 1, 10**18, 10**400, 1e308, -1e-320, float("nan"),
    float("inf"), "", "x", "x" * 10_000, "\x1b[31mred\x1b]0;title\x07", EVIL, '#read("/etc/passwd")', "{{ 7 * 7 }}",
    "a\x00b", "\ud800", "../../outside", "/dev/zero", "重み", [], {}, [[]], [1, "a", None], {"": {"": []}}, "NaN",
    [[[[[[[[1]]]]]]]],
]  # fmt: skip


def deep(random):
    value = []
    for _ in range(random.integers(50, 900)):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


def odd(random):
    return deep(random) if random.random() < 0.05 else ODD[random.integers(len(ODD))]


def alter(value, random):
    """Return plain data with one part of it changed, removed, renamed or added."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        value = dict(value)
        key = list(value)[random.integers(len(value))]
        what = random.random()
        if what < 0.7:
            value[key] = alter(value[key], random)
        elif what < 0.85:
            del value[key]
        elif what < 0.95:
            value[str(odd(random))[:300]] = value.pop(key)
        else:
            value[str(odd(random))[:300]] = odd(random)
        return value
    if isinstance(value, list) and value and random.random() < 0.7:
        value = list(value)
        value[random.integers(len(value))] = alter(value[random.integers(len(value))], random)
        return value * int(random.choice([1, 1, 1, 50]))
    return odd(random)


def dumps(value):
    return json.dumps(value).encode()


def alter_json(path, random):
    """Change some parts."""
    value = json.loads(path.read_text())
    for _ in range(random.integers(1, 4)):
        value = alter(value, random)
    path.write_bytes(dumps(value))


def alter_lines(path, random):
    """Change some lines."""
    lines = path.read_bytes().splitlines()
    for _ in range(random.integers(1, 5)):
        at = random.integers(len(lines)) if random.random() < 0.7 else len(lines) - 1
        lines[at] = dumps(alter(json.loads(lines[at]), random))
        try:
            json.loads(lines[at])
        except (ValueError, RecursionError):
            break
    path.write_bytes(b"\n".join(lines) + b"\n")


def many_lines(path, random):
    """Repeat the lines many times."""
    path.write_bytes(path.read_bytes() * 300)


JSON = [*[alter_json] * 20, *ANY]
LINES = [*[alter_lines] * 20, many_lines, *ANY]

TOML_VALUES = [
    "-1", "0", "1", "1e308", "nan", "inf", "-inf", str(2**63), "9" * 400, "9" * 5000, "true", '""', '"x"',
    f'"{EVIL}"', "[" * 300 + "]" * 300, "[" * 20 + "]" * 20, "{}", "[]", "[1, 'a', nan]", "1979-05-27", "07:32:00",
    '"\\u0000"', "{log = [0, 1]}", "{log = [1e-400, 1e308]}", "{log = ['a', 2]}", "[1, 1]", "[true, 2.5]",
    "1000000000", '"../../x"', "[{}]", "{a = {b = {c = 1}}}", '"重み"', "[0.1, 0.01]", "[" + "1," * 5000 + "]",
]  # fmt: skip
TOML_LINES = [
    "[[grid]]", "[grid.factors]", "[tune]", "[[sweep]]", "[[transfer]]", "rule = 'ia'", "trials = 1000000000",
    "top = 'a'", "depth = 9223372036854775808", "epochs = 1e308", "seeds = [1e3]", "to = {a = {depth = 3}}",
    "settings = 3", "[rules.ia]", "[a" + ".b" * 20_000 + "]", "x = " + "9" * 5000, "\ufeff", "claims = ['x']",
    "map = ['lr', 'lr']", "search = 3",
]  # fmt: skip


def alter_toml(path, random):
    """Change some values, or put in, leave out and exchange lines."""
    lines = path.read_text().split("\n")
    for _ in range(random.integers(1, 5)):
        at, what = random.integers(len(lines)), random.random()
        name, equals, _ = lines[at].partition("=")
        if what < 0.6 and equals:
            lines[at] = f"{name}= {TOML_VALUES[random.integers(len(TOML_VALUES))]}"
        elif what < 0.8:
            lines.insert(at, TOML_LINES[random.integers(len(TOML_LINES))])
        elif len(lines) > 1:
            other = random.integers(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    path.write_text("\n".join(lines))


TOML = [*[alter_toml] * 30, *ANY]

# HDF5


def members(file):
    found = []
    file.visit(found.append)
    return found


def pick(file, random, kind=h5py.Dataset):
    names = [name for name in members(file) if isinstance(file[name], kind)]
    return names[random.integers(len(names))]


def values(file, random):
    """Put other numbers into a variable."""
    variable = file[pick(file, random)]
    if variable.dtype.kind in "iuf" and 0 < variable.size < 10**6:  # more were declared by `bomb`
        extremes = [0, 1, -1, 127, 1e30, -1e30, np.nan, np.inf, 5e-324]
        if variable.dtype.kind != "f":
            information = np.iinfo(variable.dtype)
            extremes = [0, 1, 127, information.min, information.max]
        array = variable[()]
        flat = np.atleast_1d(array).reshape(-1).copy()
        flat[random.integers(flat.size, size=random.integers(1, flat.size + 1))] = random.choice(extremes)
        variable[()] = flat.reshape(array.shape)


ODD_ARRAYS = [
    np.float64(1), np.ones(3), np.ones((2, 3, 4)), np.ones((1,) * 9), np.zeros(0), np.array([np.nan, np.inf]),
    np.ones(5, "c16"), np.array([b"ab", b"c"]), np.array(["a", "b"], h5py.string_dtype()),
    np.zeros(2, [("a", "f8"), ("b", "S3")]), np.zeros(3, h5py.enum_dtype({"a": 0, "b": 1})),
    np.array([2**64 - 1], "u8"), np.ones(4, ">f4"), np.ones(3, "f2"), np.array(["2000-01-01"], "S10"),
    np.array([b"\xff\xfe"]),
]  # fmt: skip


def other_array(file, random):
    """Put another array in the place of a variable."""
    name = pick(file, random)
    scale = h5py.h5ds.is_scale(file[name].id)
    del file[name]
    file[name] = ODD_ARRAYS[random.integers(len(ODD_ARRAYS))]
    if scale and random.random() < 0.7:
        file[name].make_scale(name.rpartition("/")[2])


def references(file, random):
    """Put references to objects in the place of a variable."""
    name = pick(file, random)
    del file[name]
    file[name] = np.array([file.ref] * 3, h5py.ref_dtype)


def bomb(file, random):
    """Declare a variable that is far larger than the file."""
    name = pick(file, random) if random.random() < 0.7 else "more"
    if name in file:
        scale = h5py.h5ds.is_scale(file[name].id)
        del file[name]
    else:
        scale = False
    how = [
        {"shape": (10**9,), "chunks": (10**6,)},
        {"shape": (10**9,), "chunks": (10**6,), "compression": 9, "maxshape": (None,)},
        {"shape": (2**20, 2**20), "chunks": (2**10, 2**10), "fillvalue": 3},
        {"shape": (10,), "chunks": (10**8,), "maxshape": (None,), "compression": 1},
        {"shape": (10**9,)},
    ]
    variable = file.create_dataset(name, dtype="f8", **how[random.integers(len(how))])
    if scale:
        variable.make_scale(name)


def text_bomb(file, random):
    """Declare a variable of very many texts."""
    name = pick(file, random)
    del file[name]
    file.create_dataset(name, (10**8,), h5py.string_dtype(), chunks=(10**5,))


def external(file, random):
    """Let a variable, or a group, lie in another file."""
    secret = outside_of(file)
    name = pick(file, random, random.choice([h5py.Dataset, h5py.Dataset, object]))
    shape = getattr(file[name], "shape", (3,)) or (3,)
    del file[name]
    how = random.integers(4)
    if how == 0:
        file[name] = h5py.ExternalLink(str(secret / "secret.h5"), str(random.choice(["/x", "/", "/group"])))
    elif how == 1:
        size = int(np.prod(shape)) * 8
        file.create_dataset(name, shape, "f8", external=[(str(secret / "secret.bin"), 0, size)])
    elif how == 2:
        layout = h5py.VirtualLayout(shape, "f8")
        layout[...] = h5py.VirtualSource(str(secret / "secret.h5"), "x", shape)
        file.create_virtual_dataset(name, layout)
    else:
        file[name] = h5py.ExternalLink("/dev/zero", "/x")


def outside_of(file):
    from pathlib import Path

    return outside(Path(file.filename))


def soft(file, random):
    """Let a name be a link in the file: to another variable, to nothing, to itself, to a group above."""
    name, other = pick(file, random), pick(file, random, object)
    del file[name]
    file[name] = h5py.SoftLink(random.choice([f"/{other}", "/nowhere", f"/{name}", "/"]))


def hard(file, random):
    """Give an object many names, or put a group into itself."""
    name = pick(file, random, object)
    for i in range(random.integers(1, 60)):
        file[f"{name.rpartition('/')[0]}/again{i}"] = file[name]
    groups = [each for each in members(file) if isinstance(file[each], h5py.Group)]
    if groups and random.random() < 0.5:
        file[f"{groups[0]}/loop"] = file[groups[0]]


def group(file, random):
    """Put a group in the place of a variable, or add one."""
    name = pick(file, random)
    if random.random() < 0.5:
        del file[name]
        file.create_group(name)
    else:
        file.create_group(f"{name}-more/x")


def remove_member(file, random):
    """Remove a variable or a group."""
    del file[pick(file, random, object)]


def rename(file, random):
    """Give a variable or a group another name."""
    names = ["x", EVIL, "_state", "model", "%2F", "a=3", "\x1b[31m", "重み", "x" * 500, "step", "layer", "weight_angle"]
    name = names[random.integers(len(names))]
    if name not in file:
        file.move(pick(file, random, object), name)


ODD_ATTRIBUTES = [
    0, 1, -1, 2**62, np.uint64(2**64 - 1), 1.5, np.nan, np.inf, "", "x" * 30_000, EVIL, "\x1b[31m",
    "days since 2000-01-01", "{{ 7 * 7 }}", '#read("/etc/passwd")', np.array([1, 2]), np.zeros((2, 2)), np.zeros(0),
    np.array(["a"] * 500, h5py.string_dtype()), b"\xff", np.zeros(2, [("a", "f8")]), h5py.Empty("f8"),
    np.bytes_("Conv2d"), "sweep", "[" * 5000, '{"a": ' * 90, "NaN", "1" * 400,
]  # fmt: skip


def attribute(file, random):
    """Change, remove or add an attribute."""
    owner = file[pick(file, random, object)] if random.random() < 0.7 else file
    names = [
        *owner.attrs,
        "dtype",
        "torch_dtype",
        "units",
        "coordinates",
        "_FillValue",
        "scale_factor",
        "add_offset",
        "calendar",
    ]
    name = names[random.integers(len(names))]
    if name in owner.attrs and random.random() < 0.2:
        del owner.attrs[name]
    else:
        owner.attrs[name] = ODD_ATTRIBUTES[random.integers(len(ODD_ATTRIBUTES))]


def step_attribute(file, random):
    """Change what a snapshot says of itself."""
    file.attrs[str(random.choice(["step", "format"]))] = ODD_ATTRIBUTES[random.integers(len(ODD_ATTRIBUTES))]


EDITS = [
    values, values, values, other_array, other_array, references, bomb, text_bomb, external, external, soft, hard,
    group, remove_member, rename, attribute, attribute, attribute, step_attribute,
]  # fmt: skip


def alter_hdf5(path, random):
    """Change an HDF5 file in some ways."""
    with h5py.File(path, "a") as file:
        for _ in range(random.integers(1, 3)):
            try:
                EDITS[random.integers(len(EDITS))](file, random)
            except (ValueError, OSError, RuntimeError, KeyError, TypeError, OverflowError):
                continue  # what HDF5 itself refuses, such as a second group of a name


HDF5 = [*[alter_hdf5] * 30, *ANY]

# Checkpoints


class Run:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Call:
    """Calls a function where it is unpickled: something harmless of torch's or Python's, with a number that is not."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def alter_state(path, random):
    """Change parts of what it holds."""
    state = torch.load(path, weights_only=True)
    keys = list(state)
    for _ in range(random.integers(1, 3)):
        at = keys[random.integers(len(keys))]
        value = state[at]
        if isinstance(value, dict) and value and random.random() < 0.8:
            inner = list(value)[random.integers(len(value))]
            if isinstance(value[inner], torch.Tensor) and random.random() < 0.7:
                tensor = value[inner]
                others = tensor[:1], tensor.double(), tensor * float("nan"), tensor.expand(1000, *tensor.shape)
                value[inner] = others[random.integers(len(others))]
            else:
                value[inner] = odd(random)
        else:
            state[at] = odd(random)
    torch.save(state, path)


def executable(path, random):
    """Put in what would run when it is unpickled."""
    if random.random() < 0.5:
        torch.save({"step": 0, "model": Run(outside(path) / "ran")}, path)
    else:
        path.write_bytes(pickle.dumps(Run(outside(path) / "ran")))


def state_bomb(path, random):
    """Put in what takes far more memory than the file."""
    lists = []
    for _ in range(40):
        lists = [lists] * 10
    bombs = [
        Call(bytearray, 10**10),
        Call(torch.UntypedStorage, 10**10),
        torch.zeros(1).expand(10**6, 10**6),
        lists,
        Call(torch.FloatStorage, 10**10),
    ]
    torch.save({"step": 0, "model": bombs[random.integers(len(bombs))]}, path)


def packed(path, random):
    """Pack its entries, one of them with very many zeros."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    names = [name for name in entries if "/data/" in name]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, bytes(2**26) if name == names[0] else content)


def memo(path, random):
    """Let the pickle use a place very far out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, b"\x80\x02}r\xff\xff\xff\x7f." if name.endswith("data.pkl") else content)


CHECKPOINT = [*[alter_state] * 8, executable, executable, state_bomb, state_bomb, packed, memo, *ANY]


# Arrays that another program exported

PLAIN_ARRAYS = [array for array in ODD_ARRAYS if array.dtype.metadata is None]  # without the types of HDF5


def other_export(arrays, random):
    """Return arrays by name, one of them changed, renamed, removed or added."""
    name = list(arrays)[random.integers(len(arrays))]
    value, what = arrays[name], random.integers(6)
    others = [*PLAIN_ARRAYS, value[:1], value[..., None], value * np.nan, value > 0, value.T, -value]
    if what < 3:
        arrays[name] = others[random.integers(len(others))]
    elif what == 3:
        del arrays[name]
    elif what == 4:
        arrays[random.choice(["../../x_forward", "/_forward", "_forward", "a\x1b[2J_feedback", "x" * 500])] = value
    else:
        arrays["step"] = random.choice([-1.0, 0.5, 3.0, 2.0**63, np.inf, np.nan], size=random.integers(4))
    return arrays


def alter_npz(path, random):
    """Change some of its arrays."""
    with path.open("rb") as file, np.load(file) as archive:
        arrays = dict(archive)
    np.savez(path, **other_export(arrays, random))


def alter_mat(path, random):
    """Change some of its arrays."""
    arrays = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    arrays = other_export(arrays, random)
    if random.random() < 0.2:
        arrays["odd"] = random.choice(np.array([{"a": 1}, "text", [[1], "a"]], object))
    scipy.io.savemat(path, {name[:31].lstrip("_"): value for name, value in arrays.items()}, do_compression=True)


def objects_npz(path, random):
    """Put in an array of objects that run when they are unpickled."""
    np.savez(path, a_forward=np.array([Run(outside(path) / "ran")], object), a_feedback=np.ones((1, 2, 2)))


def npz_bomb(path, random):
    """Put in an array that is far larger than the file, packed or only by its header."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a_forward.npy", "w") as file:
        header = {
            "descr": "<f8",
            "fortran_order": False,
            "shape": (10**9, 10, 10) if random.random() < 0.5 else (2**26,),
        }
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(2**26))


NPZ = [*[alter_npz] * 20, *[objects_npz, npz_bomb] * 2, *ANY]
MAT = [*[alter_mat] * 20, *ANY]


def for_file(path):
    """Return the ways to damage a file, by its name."""
    kinds = {".json": JSON, ".jsonl": LINES, ".nc": HDF5, ".pt": CHECKPOINT, ".toml": TOML, ".npz": NPZ, ".mat": MAT}
    return kinds.get(path.suffix, ANY)
