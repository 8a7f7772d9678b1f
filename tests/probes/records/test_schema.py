"""The run directory: bitwise round trips, whole files or none, one clear line for every broken one."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import h5py
import numpy as np
import pytest
import xarray as xr

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.netcdf import Form
from wtdiag.probes.records.schema import (
    LayerArrays,
    Snapshot,
    layer_names,
    open_run,
    open_snapshot,
    read_layer,
    read_state,
    snapshot_path,
    write_aside,
    write_json,
    write_snapshot,
)


def random(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.fixture
def run_path(tmp_path):
    write_json(tmp_path / "config.json", {"status": "finished", "rule": {"name": "fa"}})
    (tmp_path / "snapshots").mkdir()
    return tmp_path


STRIDE = {"stride": [1, 2]}
ATTRS = {"padding_mode": "zeros", "empty": "", "none": [], "gain": 0.5}
LAYERS = {
    "stem/a%b": LayerArrays(random(4, 3, 3, 5), random(4, 3, 3, 5, seed=1), "Conv2d", 1, attrs=STRIDE),
    "fc": LayerArrays(random(6, 4), None, "Linear", 0, carries_error=False),
    "up": LayerArrays(random(4, 2, 3), random(4, 2, 3, dtype=np.float64), "ConvTranspose1d", 2, fixed=True),
    "direct": LayerArrays(random(4, 2, 3, 3), random(10, 4, 8, 8), "Conv2d", 3, groups=2, direct=True),
    "": LayerArrays(random(2, 3, 2, 2, 2), random(2, 3, 2, 2, 2), "Conv3d", 4, dtype="bfloat16"),
    "_state": LayerArrays(random(1, 1), random(1, 1), "Linear", 5, attrs=ATTRS),
}
STATE = {
    "fc.bias": random(6),
    "batches": np.array(7),
    "flag": np.array(True),
    "mask": np.array([[True, False], [False, False]]),
    "half": np.array([1.5, np.inf, -0.0, 6e-8], np.float16),
    "double": np.array([[np.nan, -0.0], [5e-324, 1e308]]),
    "bytes": np.arange(5, dtype=np.uint8),
    "phase": np.array([[1 + 2j, -0.0j]], np.complex64),
    "rotation": np.array(1j),
    "empty": np.empty((0, 3), np.float32),
    "odd/name=3 %": np.ones((2, 2)),
}


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_more_than_ten_layers_keep_their_order(tmp_path):
    names = [f"fc{number}" for number in np.random.default_rng(0).permutation(12)]
    layers = {name: LayerArrays(random(2, 3), None, "Linear", index) for index, name in enumerate(names)}
    write_snapshot(tmp_path / "s.nc", Snapshot(0, dict(sorted(layers.items())), {}))
    with open_snapshot(tmp_path / "s.nc") as file:
        assert layer_names(file) == names


def test_snapshot_comes_back_bitwise(tmp_path):
    path = tmp_path / "s.nc"
    write_snapshot(path, Snapshot(3, LAYERS, STATE, {"fc.bias": "bfloat16"}))
    with open_snapshot(path) as file:
        state = read_state(file)
        layers = {name: read_layer(file, name or "model") for name in LAYERS}
        assert file["_state/fc.bias"].attrs["torch_dtype"] == b"bfloat16"
    assert state.keys() == STATE.keys()
    assert all(same_bits(state[key], STATE[key]) for key in STATE)
    for name, layer in LAYERS.items():
        back = layers[name]
        assert same_bits(back.forward, layer.forward)
        assert (back.feedback is None) == (layer.feedback is None)
        if layer.feedback is not None:
            assert same_bits(back.feedback, layer.feedback)
        for field in ("kind", "index", "fixed", "carries_error", "direct", "groups", "attrs", "dtype"):
            assert getattr(back, field) == getattr(layer, field), field


def test_same_snapshot_same_bytes(tmp_path):
    for name in "ab":
        write_snapshot(tmp_path / name, Snapshot(3, LAYERS, STATE))
        time.sleep(1.1 if name == "a" else 0)  # HDF5's time stamps have whole seconds
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_snapshot_of_the_form_of_the_last_has_the_bytes_of_one_that_is_laid_out_anew(tmp_path):
    form = Form()
    for step, width in ((0, 300), (7, 300), (2**40, 300), (8, 301), (9, 301), (10, 300)):
        layers = LAYERS | {"large": LayerArrays(random(99, width, seed=step), random(99, width), "Linear", 6)}
        state = {name: np.roll(array, step) for name, array in STATE.items()}
        state["big-endian"] = (np.arange(4) + step).astype(">f4")
        snapshot = Snapshot(step, layers, state, {"fc.bias": "bfloat16"})
        write_snapshot(tmp_path / "form", snapshot, form)
        write_snapshot(tmp_path / "anew", snapshot)
        assert (tmp_path / "form").read_bytes() == (tmp_path / "anew").read_bytes()


@pytest.mark.parametrize(
    "changed",
    [
        {"fc": dataclasses.replace(LAYERS["fc"], carries_error=True)},
        {"fc": dataclasses.replace(LAYERS["fc"], feedback=random(6, 4))},
        {"fc": dataclasses.replace(LAYERS["fc"], forward=random(4, 6))},
        {"fc": dataclasses.replace(LAYERS["fc"], attrs={"gain": 0.25})},
        {"fc": dataclasses.replace(LAYERS["fc"], dtype="bfloat16")},
        {"other": LAYERS["fc"]},
    ],
)
def test_a_snapshot_of_another_form_is_laid_out_anew(tmp_path, changed):
    form = Form()
    write_snapshot(tmp_path / "before", Snapshot(1, LAYERS, STATE), form)
    snapshot = Snapshot(2, LAYERS | changed, STATE)
    write_snapshot(tmp_path / "form", snapshot, form)
    write_snapshot(tmp_path / "anew", snapshot)
    assert (tmp_path / "form").read_bytes() == (tmp_path / "anew").read_bytes()


def test_xarray_reads_named_dims(tmp_path):
    write_snapshot(tmp_path / "s.nc", Snapshot(3, LAYERS, STATE))
    with xr.open_datatree(tmp_path / "s.nc", engine="h5netcdf") as tree:
        assert tree.attrs["format"] == 1
        assert tree.attrs["step"] == 3
        assert tree["fc"].forward.dims == ("out", "in")
        assert tree["stem%2Fa%25b"].feedback.dims == ("out", "in", "kh", "kw")
        assert tree["up"].forward.dims == ("in", "out", "kw")
        assert tree["model"].forward.dims == ("out", "in", "kd", "kh", "kw")
        assert tree["direct"].feedback.dims == ("class", "input", "h", "w")
        assert tree["_state"]["mask"].dtype == bool
        np.testing.assert_array_equal(tree["up"].feedback, LAYERS["up"].feedback)


def test_more_state_than_fits_an_attribute(tmp_path):
    state = {f"layer{i}.bias": np.full(3, i) for i in range(4500)}  # > 64 KiB of references to one dimension
    write_snapshot(tmp_path / "s.nc", Snapshot(0, {}, state))
    with open_snapshot(tmp_path / "s.nc") as file:
        assert read_state(file)["layer4499.bias"].tolist() == [4499] * 3


def test_run(run_path):
    for step in (100, 0, 20):
        layers = {
            "b": LayerArrays(np.full((2, 3), step), None, "Linear", 1),
            "a": LayerArrays(np.ones((3, 3)), np.full((3, 3), -step), "Linear", 0, fixed=True),
        }
        write_snapshot(snapshot_path(run_path, step), Snapshot(step, layers, {"n": np.array(step)}))
    (run_path / "snapshots" / ".step-00000200.nc.abc.tmp").touch()  # what a killed run leaves behind
    run = open_run(run_path)
    assert run.config["rule"] == {"name": "fa"}
    assert run.steps.tolist() == [0, 20, 100]
    assert list(run.snapshot(20).children) == ["a", "b"]
    assert run.snapshot(20)["b"].feedback.values.tolist() == [[20] * 3] * 2
    history = run.layer("a")
    assert history.feedback.dims == ("step", "out", "in")
    assert history.feedback.sel(step=100).values.tolist() == [[-100] * 3] * 3
    assert run.layer("b").feedback.equals(run.layer("b").forward)
    assert run.state(100) == {"n": np.array(100)}
    with pytest.raises(InputError, match=r"00007.nc: there is no snapshot of step 7; steps: 0, 20, 100"):
        run.snapshot(7)
    with pytest.raises(InputError, match=r"layer: 'c' is not known. Choices: a, b"):
        run.layer("c")


def test_metrics(run_path):
    lines = ['{"step": 1, "loss": 2.5}', '{"step": 2, "loss": NaN, "event": "jump"}', '{"step": 3, "lo']
    (run_path / "metrics.jsonl").write_text("\n".join(lines))  # killed within the last line
    metrics = open_run(run_path).metrics
    assert metrics.step.tolist() == [1, 2]
    assert metrics.event.isna().tolist() == [True, False]
    (run_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl: line 2 is not JSON"):
        _ = open_run(run_path).metrics
    (run_path / "metrics.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"line 1 is not a JSON object: '\[1\]'"):
        _ = open_run(run_path).metrics
    (run_path / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=r"metrics.jsonl: cannot be read"):
        _ = open_run(run_path).metrics


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000, b"\xff\xfe\x00"])
def test_corrupt_config(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"config.json: .*expected") as caught:
        open_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_run_that_is_none(tmp_path):
    with pytest.raises(InputError, match="is not a directory; expected a run directory"):
        open_run(tmp_path / "none")
    with pytest.raises(InputError, match=r"config.json: cannot be read \(No such file"):
        open_run(tmp_path)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("step 0")


def newer(path):
    with h5py.File(path, "a") as file:
        file.attrs["format"] = 2


def foreign(path):
    with h5py.File(path, "w") as file:
        file["fc"] = 1


def without_weights(path):
    with h5py.File(path, "a") as file:
        del file["fc/forward"]


def without_attribute(path):
    with h5py.File(path, "a") as file:
        del file["fc"].attrs["index"]


def odd_attribute(path):
    with h5py.File(path, "a") as file:
        file["fc"].attrs["groups"] = "two"


def dataset_for_layer(path):
    with h5py.File(path, "a") as file:
        file["other"] = np.ones(3)


def pointer_to_another_file(path):
    with h5py.File(path.with_name("secret.h5"), "w") as file:
        file["weights"] = np.ones((6, 4))
    with h5py.File(path, "a") as file:
        del file["fc/forward"]
        file["fc/forward"] = h5py.ExternalLink("secret.h5", "/weights")


def storage_in_another_file(path):
    path.with_name("secret.bin").write_bytes(bytes(192))
    with h5py.File(path, "a") as file:
        del file["fc/forward"]
        secret = [(str(path.with_name("secret.bin")), 0, 192)]
        file["fc"].create_dataset("forward", (6, 4), "f8", external=secret)


def with_attribute(name, value):
    def damage(path):
        with h5py.File(path, "a") as file:
            file["fc"].attrs[name] = value

    return pytest.param(damage, id=f"{name}_{value}")


def with_weights(name, array, **how):
    def damage(path):
        with h5py.File(path, "a") as file:
            del file["fc/forward"]
            file["fc"].create_dataset("forward", data=array, **how)

    return pytest.param(damage, id=f"{name}_weights")


def group_for_weights(path):
    with h5py.File(path, "a") as file:
        del file["fc/forward"]
        file["fc/forward"] = h5py.SoftLink("/_state")


def weights_without_bytes(path):
    with h5py.File(path, "a") as file:
        del file["fc/forward"]
        file["fc"].create_dataset("forward", (6, 4), "f8")


def format_of_two_lines(path):
    with h5py.File(path, "a") as file:
        file.attrs["format"] = "1\n2"


BREAKAGES = [
    cut, empty, text, newer, foreign, without_weights, without_attribute, odd_attribute, dataset_for_layer,
    pointer_to_another_file, storage_in_another_file, group_for_weights, weights_without_bytes, format_of_two_lines,
    with_attribute("groups", 0), with_attribute("groups", 4), with_attribute("index", np.inf),
    with_weights("text", [["a"] * 4] * 6), with_weights("fixed_text", np.full((6, 4), b"a")),
    with_weights("no", h5py.Empty("f4")), with_weights("complex", np.ones((6, 4), complex)),
    with_weights("flat", np.ones(24)), with_weights("other", np.ones((5, 4))), with_weights("empty", np.ones((0, 4))),
    with_weights("chunked", np.ones((6, 4)), chunks=(2, 2)), with_weights("packed", np.ones((6, 4)), compression=1),
]  # fmt: skip


@pytest.mark.parametrize("damage", BREAKAGES)
def test_broken_snapshot(run_path, damage):
    path = snapshot_path(run_path, 0)
    write_snapshot(path, Snapshot(0, {"fc": LayerArrays(random(6, 4), random(6, 4), "Linear", 0)}))
    damage(path)
    for read in (lambda run: run.snapshot(0), lambda run: run.layer("fc")):
        with pytest.raises(InputError, match=r"step-00000000.nc: ") as caught:
            read(open_run(run_path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", [100, None, "100", [100, 0]])
def test_a_snapshot_of_another_step(run_path, step):
    path = snapshot_path(run_path, 0)
    write_snapshot(path, Snapshot(100, {"fc": LayerArrays(random(6, 4), random(6, 4), "Linear", 0)}))
    with h5py.File(path, "a") as file:
        del file.attrs["step"]
        if step is not None:
            file.attrs["step"] = step
    for read in (lambda run: run.snapshot(0), lambda run: run.layer("fc"), lambda run: run.state(0)):
        with pytest.raises(InputError, match=r"00\.nc: is the snapshot of step .*; expected that of step 0$"):
            read(open_run(run_path))
    other = path.rename(run_path / "kept.nc")  # a name that says no step
    with open_snapshot(other) as file:
        assert "fc" in file


@pytest.mark.parametrize("step", ["0", 0.5, None, np.nan, [0, 1]])
def test_a_step_that_is_no_number(run_path, step):
    for read in (open_run(run_path).snapshot, open_run(run_path).state):
        with pytest.raises(InputError, match="step: expected a whole number, got "):
            read(step)


def test_a_bomb_is_refused_before_it_is_read(run_path):
    """A snapshot of some kB that declares half a gigabyte of weights."""
    path = snapshot_path(run_path, 0)
    write_snapshot(path, Snapshot(0, {"fc": LayerArrays(random(6, 4), None, "Linear", 0)}, {"fc.bias": random(6)}))
    huge = {"shape": (2**12, 2**14), "dtype": "f8", "chunks": (2**11, 2**11), "compression": 9}
    with h5py.File(path, "a") as file:
        for name in ("fc/forward", "_state/fc.bias"):
            del file[name]
            file.create_dataset(name, **huge)
    tracemalloc.start()
    try:
        for read in (lambda run: run.snapshot(0), lambda run: run.state(0)):
            with pytest.raises(InputError, match=r"step-00000000.nc: .*expected its bytes in one piece"):
                read(open_run(run_path))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_foreign_byte_order(tmp_path):
    """Torch takes the native order only."""
    write_snapshot(tmp_path / "s.nc", Snapshot(0, {}, {"x": np.arange(3, dtype=">f4"), "n": np.array(7, ">i8")}))
    with open_snapshot(tmp_path / "s.nc") as file:
        state = read_state(file)
    assert state["x"].dtype.isnative
    assert state["n"].dtype.isnative
    assert state["x"].tolist() == [0, 1, 2]
    assert state["n"] == 7


def test_names_that_are_no_steps(run_path):
    write_snapshot(snapshot_path(run_path, 10**8), Snapshot(10**8, {}))
    for name in ("step-1.nc", "step-000000001.nc", "step-٠٠٠٠٠٠٠١.nc", "step-00000002.nc.bak"):
        (run_path / "snapshots" / name).touch()
    assert open_run(run_path).steps.tolist() == [10**8]
    (run_path / "snapshots" / "step-99999999999999999999.nc").touch()
    with pytest.raises(InputError, match=r"step-99999999999999999999.nc: expected a step below"):
        _ = open_run(run_path).steps


def test_the_newest_snapshot_knows_the_order(run_path):
    """Before the first batch the layers' order is that of registration."""
    for step, order in enumerate(("ab", "ba", "ba")):
        layers = {
            name: LayerArrays(np.ones((2, 2)), None, "Linear", order.index(name), carries_error=not step or name == "a")
            for name in "ab"
        }
        write_snapshot(snapshot_path(run_path, step), Snapshot(step, layers))
    run = open_run(run_path)
    for step in run.steps:
        nodes = run.snapshot(step).children
        assert [(name, node.attrs["index"]) for name, node in nodes.items()] == [("b", 0), ("a", 1)]
    assert run.layer("b").attrs["index"] == 0
    assert not run.layer("b").attrs["carries_error"]
    write_snapshot(snapshot_path(run_path, 3), Snapshot(3, {"b": LayerArrays(np.ones((2, 2)), None, "Linear", 0)}))
    with pytest.raises(InputError, match=r"step-00000000.nc: has other layers than the last snapshot"):
        run.snapshot(0)


def test_changing_shape(run_path):
    for step, size in enumerate((2, 3)):
        layer = LayerArrays(np.ones((size, 2)), None, "Linear", 0)
        write_snapshot(snapshot_path(run_path, step), Snapshot(step, {"fc": layer}))
    with pytest.raises(InputError, match=r"layer 'fc' changes its shape"):
        open_run(run_path).layer("fc")


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([None]), np.array([1], np.longdouble)])
def test_dtype_that_cannot_be_stored(tmp_path, array):
    with pytest.raises(InputError, match="cannot be stored; expected numbers or booleans"):
        write_snapshot(tmp_path / "s.nc", Snapshot(0, {}, {"x": array}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(3,), (1,) * 6])
def test_weight_of_odd_rank(tmp_path, shape):
    with pytest.raises(InputError, match=r"a weight has shape .*; expected 2 to 5 dims"):
        write_snapshot(tmp_path / "s.nc", Snapshot(0, {"x": LayerArrays(np.ones(shape), None, "Odd", 0)}))


def test_write_aside_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail_half_way():
        with write_aside(path) as aside:
            aside.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written \(.*No such file or directory"):
        write_snapshot(tmp_path / "none" / "s.nc", Snapshot(0, {}))
    with pytest.raises(InputError, match=r"cannot be written \(Is a directory"):
        write_json(tmp_path, {})


@pytest.mark.skipif(os.name != "posix", reason="the disk is filled by a limit on file size")
def test_disk_that_is_full(tmp_path):
    """A file-size limit fails a write as a full disk does, half-way."""
    path = tmp_path / "s.nc"
    path.write_text("old")
    script = f"""
import resource, signal
import numpy as np
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import LayerArrays, Snapshot, write_snapshot
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_snapshot({str(path)!r}, Snapshot(0, {{"fc": LayerArrays(np.ones((300, 300)), None, "Linear", 0)}}))
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == f"{path}: cannot be written (File too large)\n", done.stderr
    assert [path] == list(tmp_path.iterdir())
    assert path.read_text() == "old"


def test_killed_while_writing(tmp_path):
    """Whatever instant the writer dies at, the snapshot is the old one or a new one, never a part."""
    path = tmp_path / "s.nc"
    script = f"""
import itertools
import numpy as np
from wtdiag.probes.records.schema import LayerArrays, Snapshot, write_snapshot
for step in itertools.count():
    weights = np.full((1000, 1000), float(step))
    write_snapshot({str(path)!r}, Snapshot(step, {{"fc": LayerArrays(weights, None, "Linear", 0)}}))
    print(step, flush=True)
"""
    for delay in (0.0, 0.003, 0.007, 0.012):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "0\n"
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        with open_snapshot(path) as file:
            weights = read_layer(file, "fc").forward
            assert (weights == file.attrs["step"]).all()


def test_config_round_trip(tmp_path):
    content = {"name": "Ωmega", "rule": {"decay": 1e-3}, "versions": {"torch": "2"}}
    write_json(tmp_path / "c.json", content)
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8")) == content
