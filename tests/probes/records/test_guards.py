"""Files that may come from anyone: no link is followed, nothing but regular files is opened, and no file costs much."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest
import xarray as xr

from wtdiag.diagnostics.analysis.analyze import read_analysis, write_analysis
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import json_line, parse_json, read_json, read_toml, write_json, write_through
from wtdiag.probes.records.netcdf import read_dataset, write_dataset
from wtdiag.probes.records.rundir import Hold, append_metrics, rewind
from wtdiag.probes.records.schema import (
    LayerArrays,
    Snapshot,
    open_run,
    open_snapshot,
    read_probe_batch,
    read_state,
    snapshot_path,
    write_snapshot,
)

WEIGHT = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    (path / "snapshots").mkdir(parents=True)
    write_json(path / "config.json", {"status": "finished"})
    append = json_line({"step": 1, "loss": 0.5})
    (path / "metrics.jsonl").write_bytes(append)
    layers = {"fc": LayerArrays(WEIGHT, WEIGHT, "Linear", 0)}
    write_snapshot(snapshot_path(path, 0), Snapshot(0, layers, {"a": np.ones(9000), "b": np.ones(9000)}))
    batch = xr.Dataset({"inputs": (("batch", "feature"), np.ones((4, 3))), "targets": (("batch",), np.arange(4))})
    write_dataset(path / "probe_batch.nc", batch)
    values = {"weight_angle": (("step", "layer"), np.ones((2, 2)), {"units": "degree"})}
    coordinates = {"step": [0, 5], "layer": np.array(["a", "b"], object), "kind": ("layer", ["Linear"] * 2)}
    write_analysis(xr.Dataset(values, coordinates), path / "analysis.nc")
    return path


READERS = {
    "config.json": lambda run: open_run(run),
    "metrics.jsonl": lambda run: open_run(run).metrics,
    "snapshots/step-00000000.nc": lambda run: open_run(run).snapshot(0),
    "probe_batch.nc": lambda run: read_probe_batch(run / "probe_batch.nc"),
    "analysis.nc": lambda run: read_analysis(run / "analysis.nc"),
}


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def link(path):
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("special", [pipe, device, link])
def test_files_of_a_run_are_regular(run, name, special):
    READERS[name](run)
    (run / name).rename((run / name).with_name("elsewhere"))
    special(run / name)
    with pytest.raises(InputError, match=r": (.*\()?.*is a (link|pipe)") as refused:
        READERS[name](run)
    assert str(refused.value).count(str(run / name)) == 1


def test_nothing_is_written_or_removed_through_a_link(run, tmp_path):
    """A run from someone else may have its metrics or its snapshots lead to files of the reader's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (run / "metrics.jsonl").rename(outside / "metrics.jsonl")
    (run / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")
    before = (outside / "metrics.jsonl").read_bytes()
    for write in (lambda: append_metrics(run, {"step": 2}), lambda: rewind(run, 0)):
        with pytest.raises(InputError, match=r"metrics\.jsonl: is a link"):
            write()
    assert (outside / "metrics.jsonl").read_bytes() == before
    (run / "snapshots").rename(outside / "snapshots")
    (run / "snapshots").symlink_to(outside / "snapshots")
    for use in (lambda: rewind(run, -1), lambda: open_run(run).steps):
        with pytest.raises(InputError, match="snapshots: is a link"):
            use()
    assert len(list((outside / "snapshots").iterdir())) == 1


def external_storage(file, secret):
    file.create_dataset("note", (8,), "u1", external=[(str(secret), 0, 8)])


def external_link(file, secret):
    file["note"] = h5py.ExternalLink(str(secret), "/x")


def soft_link(file, secret):
    file["note"] = h5py.SoftLink("/weight_angle")


def virtual(file, secret):
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", (4,))
    file.create_virtual_dataset("note", layout)


def group(file, secret):
    file.create_group("note")


def compound(file, secret):
    file["note"] = np.zeros(2, [("a", "f8")])


def reference(file, secret):
    file["note"] = np.array([file["step"].ref] * 2, h5py.ref_dtype)


def enum(file, secret):
    file["note"] = np.zeros(2, h5py.enum_dtype({"a": 0, "b": 1}))


def text_steps(file, secret):
    del file["step"]
    file["step"] = np.array(["0", "5"], h5py.string_dtype())
    file["step"].make_scale("step")


def number_layers(file, secret):
    del file["layer"]
    file["layer"] = np.array([1.0, 2.0])
    file["layer"].make_scale("layer")


def other_size(file, secret):
    del file["weight_angle"]
    file["weight_angle"] = np.ones((3, 7))
    for axis, name in enumerate(("step", "layer")):
        file["weight_angle"].dims[axis].attach_scale(file[name])


def chunks(file, secret):
    file.create_dataset("note", (10**9,), "f8", chunks=(10**6,), compression=9)


def chunk(file, secret):
    file.create_dataset("note", (10,), "f8", chunks=(10**8,), maxshape=(None,), compression=9)


def one_text_often(file, secret):
    """Texts that all lie at the same place, which HDF5 calls valid."""
    texts = file.create_dataset("note", (60_000,), h5py.string_dtype())
    texts[0] = "x" * 60_000
    heap = texts.id.get_offset()
    size = texts.id.get_storage_size() // 60_000
    name = file.filename
    file.close()
    with open(name, "r+b") as raw:
        raw.seek(heap)
        element = raw.read(size)
        raw.seek(heap)
        raw.write(element * 60_000)


def long_attributes(file, secret):
    file["weight_angle"].attrs.create("note", ["x"] * 1000, dtype=h5py.string_dtype())


def backwards(file, secret):
    file["step"][:] = [5, 0]


DAMAGES = [
    external_storage, external_link, soft_link, virtual, group, compound, reference, enum, text_steps, number_layers,
    other_size, chunks, chunk, one_text_often, long_attributes, backwards,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_analysis_from_a_stranger(run, tmp_path, damage):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones(4)
    file = h5py.File(run / "analysis.nc", "a")
    damage(file, tmp_path / "secret.h5")
    file.close()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"analysis\.nc: ") as caught:
            read_analysis(run / "analysis.nc")
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def group_by_external_link(file, secret):
    del file["fc"]
    file["fc"] = h5py.ExternalLink(str(secret), "/fc")


def group_by_soft_link(file, secret):
    file.move("fc", "_hidden")
    file["fc"] = h5py.SoftLink("/_hidden")


def state_by_external_link(file, secret):
    del file["_state"]
    file["_state"] = h5py.ExternalLink(str(secret), "/_state")


def array_by_soft_link(file, secret):
    file["_state/more"] = h5py.SoftLink("/_state/a")


def array_many_times(file, secret):
    for i in range(100):
        file[f"_state/again{i}"] = file["_state/a"]


@pytest.mark.parametrize(
    "damage",
    [group_by_external_link, group_by_soft_link, state_by_external_link, array_by_soft_link, array_many_times],
)
def test_a_snapshot_from_a_stranger(run, tmp_path, damage):
    path = snapshot_path(run, 0)
    (tmp_path / "secret.nc").write_bytes(path.read_bytes())
    with h5py.File(path, "a") as file:
        damage(file, tmp_path / "secret.nc")

    def read():
        open_run(run).snapshot(0)
        with open_snapshot(path) as file:
            read_state(file)

    with pytest.raises(InputError, match=r"step-00000000\.nc: .*(is a link|more bytes than the file)"):
        read()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100 + "]" * 100,
        '{"a":' * 100 + "1" + "}" * 100,
        "[" * 100_000,
        "1" + "0" * 400,
        "9" * 5000,
        str(2**64),
    ],
)
def test_json_is_bounded(text):
    with pytest.raises(ValueError, match=r"^[^\n]{1,200}$"):
        parse_json(text)


@pytest.mark.parametrize(
    "text", [f"seed = {'9' * 5000}", f"seed = {2**64}", f"x = {'[' * 300}{']' * 300}", "a.b" * 9**4]
)
def test_toml_is_bounded(tmp_path, text):
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(InputError, match=r"my\.toml: cannot be parsed: [^\n]{1,200}$"):
        read_toml(tmp_path / "my.toml")


def test_a_large_file_is_not_read(tmp_path):
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(2**34)
    with pytest.raises(InputError, match="has more than 16777216 bytes"):
        read_json(tmp_path / "config.json")


def test_json_has_no_number_that_is_not_finite(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "config.json", {"lr": np.inf})
    assert not list(tmp_path.iterdir())
    (tmp_path / "metrics.jsonl").touch()
    append_metrics(tmp_path, {"step": 1, "loss": np.nan, "norm": -np.inf, "lr": 0.5})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "loss": None, "norm": None, "lr": 0.5}


def test_metrics_are_read_in_parts(run):
    """What a table of all lines at once gives: whole numbers stay whole, gaps are NaN, texts stay texts."""
    rows = [{"step": step, "loss": step / 7} | ({"event": "jump"} if step > 19_990 else {}) for step in range(20_000)]
    (run / "metrics.jsonl").write_bytes(b"".join(map(json_line, rows)))
    metrics = open_run(run).metrics
    assert metrics["step"].dtype == np.int64
    assert metrics["loss"].tolist() == [row["loss"] for row in rows]
    assert metrics["event"].isna().sum() == 19_991
    assert metrics["event"].iloc[-1] == "jump"


def test_metrics_of_many_names(run):
    """Each line has names of its own: a table would have the square of them."""
    with open(run / "metrics.jsonl", "wb") as file:
        for step in range(4000):
            file.write(json_line({"step": step, f"name{step}": 1}))
    with pytest.raises(InputError, match=r"metrics\.jsonl: has 4001 names in 4000 lines"):
        _ = open_run(run).metrics


def test_a_forked_child_does_not_hold_the_run(tmp_path):
    held = Hold(tmp_path)
    go, wait = os.pipe()
    ready, begun = os.pipe()
    child = os.fork()
    if not child:
        os.close(wait)
        os.write(begun, b"1")
        os.read(go, 1)
        os._exit(0)
    os.read(ready, 1)
    with pytest.raises(InputError, match="is being recorded"):
        Hold(tmp_path)  # the child's end of it changes nothing here
    held.release()
    Hold(tmp_path).release()
    os.close(wait)
    os.waitpid(child, 0)


def test_a_run_is_free_when_its_process_is_killed_though_a_child_lives(tmp_path):
    script = """
import os, sys, time
from pathlib import Path
from wtdiag.probes.records.rundir import Hold
held = Hold(Path(sys.argv[1]))
child = os.fork()
if not child:
    print(os.getpid(), flush=True)  # it has let go by now
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        try:
            process.kill()
            process.wait()
            Hold(tmp_path).release()
        finally:
            os.kill(child, signal.SIGKILL)


LIMITED = """
import resource, signal, sys
import numpy as np, xarray as xr
from pathlib import Path
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.netcdf import write_dataset
from wtdiag.probes.records.schema import LayerArrays, Snapshot, write_snapshot
out = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rng = np.random.default_rng(0)
layers = {f"l{i}": LayerArrays(rng.normal(size=(60, 60)), rng.normal(size=(60, 60)), "Linear", i) for i in range(4)}
snapshot = Snapshot(3, layers, {f"s{i}": np.ones(i) for i in range(100)} | {"large": np.ones(20_000)})
dataset = xr.Dataset({f"m{i}": (("step", "layer"), np.ones((40, 4))) for i in range(30)}, {"layer": list("abcd")})
kinds = {"snapshot.nc": lambda p: write_snapshot(p, snapshot), "analysis.nc": lambda p: write_dataset(p, dataset)}
for name, write in kinds.items():
    write(out / name)
    whole = (out / name).read_bytes()
    for size in [*range(0, len(whole), len(whole) // 5), len(whole) - 1]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            write(out / name)
        except InputError as error:
            assert str(error).endswith("cannot be written (File too large)"), error
        else:
            raise AssertionError(f"{name} was written in {size} bytes")
        assert (out / name).read_bytes() == whole
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    write(out / name)
    assert (out / name).read_bytes() == whole
assert len(list(out.iterdir())) == 2
print("survived")
"""


def test_a_write_that_fails_anywhere_does_not_end_the_process(tmp_path):
    """HDF5 alone ends it, with a segmentation fault, where the file cannot be written at its close."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


def test_a_stream_keeps_the_first_error(tmp_path):
    def fill():
        with write_through(tmp_path / "x", keep=True) as stream:
            stream.write(b"whole")
            stream.seek(0)
            stream.error = OSError(28, "No space left on device")
            assert stream.read(5) == b"whole"
            assert stream.write(b"x" * 10) == 10

    with pytest.raises(InputError, match=r"x: cannot be written \(No space left on device\)"):
        fill()
    assert not list(tmp_path.iterdir())


def test_datasets_are_what_xarray_writes(run, tmp_path):
    """The same bytes as `Dataset.to_netcdf` writes, so that files before and after do not differ."""
    dataset = read_dataset(run / "analysis.nc", "a dataset")
    write_dataset(tmp_path / "ours.nc", dataset)
    dataset.to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    assert (tmp_path / "ours.nc").read_bytes() == (tmp_path / "theirs.nc").read_bytes()


def test_half_a_character_is_replaced_and_a_whole_one_kept():
    assert parse_json('{"\\ud800": ["a\\udc00", "\\ud83d\\ude00"]}') == {"\ufffd": ["a\ufffd", "\N{GRINNING FACE}"]}


AS_CHARACTERS = {"encoding": {"kind": {"dtype": "S1"}}}


@pytest.mark.parametrize("only", [(), ("z", "step", "kind")])
@pytest.mark.parametrize("written", [None, {}, {"unlimited_dims": ["step"]}, AS_CHARACTERS])
def test_a_dataset_is_read_as_xarray_reads_it(tmp_path, written, only):
    coordinates = {
        "step": ("step", np.array([0, 5]), {"long_name": "training step"}),
        "layer": ["fc1", "重み"],
        "kind": ("layer", ["Linear", "Linear"]),
        "carries_error": ("layer", np.array([False, True])),
    }
    angle = ("step", "layer"), np.array([[90.0, np.nan], [80.5, 1e-300]]), {"units": "degree", "ends": [0.0, 180.0]}
    spectrum = ("layer", "mode"), np.ones((2, 3), np.float32), {"homogeneity": 1}
    data = xr.Dataset({"z": angle, "a": spectrum, "one": 1.5, "none": ("x", np.empty(0))}, coordinates, {"rule": "ia"})
    path = tmp_path / "analysis.nc"
    if written is None:
        write_dataset(path, data)
    else:
        data.to_netcdf(path, engine="h5netcdf", **written)
    found, wanted = read_dataset(path, "an analysis", only), xr.load_dataset(path, engine="h5netcdf")
    if only:
        wanted = wanted.drop_vars(wanted.variables.keys() - set(only))
    xr.testing.assert_identical(found, wanted)
    assert [*found.data_vars] == [*wanted.data_vars]
    assert {name: each.dtype for name, each in found.variables.items()} == {
        name: each.dtype for name, each in wanted.variables.items()
    }


def test_what_xarray_opens_is_checked_even_if_it_is_not_asked_for(tmp_path):
    path = tmp_path / "analysis.nc"
    xr.Dataset({"z": ("step", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf", unlimited_dims=["step"])
    with h5py.File(path, "a") as file:
        file["odd"] = np.zeros(2, np.complex128)
    with pytest.raises(InputError, match=r"is not an analysis \(odd: holds complex128; expected numbers or texts"):
        read_dataset(path, "an analysis", ["z"])
