"""Results are read whole or not at all."""

import json

import h5py
import numpy as np
import pytest
import xarray as xr

from wtdiag.diagnostics.comparison.results import chance, check_results, gather, read_results, settings_of
from wtdiag.probes.errors import InputError

ATTRS = {"title": "a study", "settings": json.dumps({"model": "mlp", "data": "digits"})}


def make(kind, **changes):
    """Return the smallest good results of a kind."""
    dims = {
        "grid": {"rule": ["bp", "ia"], "depth": [4, 8], "seed": [0, 1]},
        "sweep": {"rule": ["bp", "ia"], "trial": [0, 1, 2]},
        "transfer": {"rule": ["bp", "ia"], "configuration": [0], "architecture": ["mlp4", "mlp8"], "seed": [0]},
    }[kind]
    shape = tuple(map(len, dims.values()))
    numbers = ["steps", "seconds"]
    numbers += (
        ["validation_accuracy", "step_size_number", "log_gain"] if kind == "sweep" else ["test_accuracy", "test_loss"]
    )
    numbers += ["weight_angle", "error_angle"] if kind == "grid" else []
    texts = {"status": "finished", "reason": ""} | ({"run": "cells/x"} if kind == "grid" else {})
    variables = {name: (tuple(dims), np.full(shape, 0.5)) for name in numbers}
    variables |= {name: (tuple(dims), np.full(shape, text, dtype=object)) for name, text in texts.items()}
    attrs = {"sweep": {"space": "{}", "sampler": "tpe", "reference": "bp"},
             "transfer": {"source": "mlp4", "reference": "bp"}, "grid": {}}[kind]  # fmt: skip
    return xr.Dataset(variables, dims, {"kind": kind} | ATTRS | attrs).assign(changes)


def write(results, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    results.to_netcdf(path, engine="h5netcdf")
    return path


@pytest.mark.parametrize("kind", ["grid", "sweep", "transfer"])
def test_what_is_written_is_read(kind, tmp_path):
    results = make(kind)
    results["seconds"].attrs["units"] = "seconds"  # no time span to be decoded
    found = read_results(write(results, tmp_path / "results.nc"))
    xr.testing.assert_identical(found, results)
    assert settings_of(found) == {"model": "mlp", "data": "digits"}


@pytest.mark.parametrize("kind", ["grid", "sweep", "transfer"])
def test_every_variable_and_attribute_is_required(kind):
    good = make(kind)
    check_results(good)
    for name in good.data_vars:
        with pytest.raises(InputError, match=str(name)):
            check_results(good.drop_vars(name))
        with pytest.raises(InputError, match=f"{name}: expected"):
            check_results(good.assign({name: good[name].isel(rule=0)}))
        swapped = np.zeros(good[name].shape) if good[name].dtype == object else np.full(good[name].shape, "x")
        with pytest.raises(InputError, match=f"{name}: expected|status"):
            check_results(good.assign({name: (good[name].dims, swapped)}))
    for name in good.attrs:
        bad = good.copy()
        del bad.attrs[name]
        with pytest.raises(InputError, match=f"^{name}: "):
            check_results(bad)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda good: good.assign_coords(rule=[0, 1]), "rule: expected texts"),
        (lambda good: good.assign_coords(rule=["bp", "bp"]), "rule: holds the same level twice"),
        (lambda good: good.assign_coords(seed=[0.5, 1.0]), "seed: expected whole numbers"),
        (lambda good: good.drop_vars("depth"), "depth: expected a coordinate"),
        (lambda good: good.isel(seed=slice(0)), "seed: expected a coordinate with at least one level"),
        (lambda good: good.assign(test_accuracy=good.test_accuracy + 1), "test_accuracy: expected shares from 0 to 1"),
        (lambda good: good.assign(status=good.status.str.upper()), "status: 'FINISHED' is not known"),
        (lambda good: good.assign_attrs(settings="[1]"), "settings: expected a JSON object"),
        (lambda good: good.assign_attrs(settings="[" * 100000), "settings: expected a JSON object"),
        (lambda good: good.assign_attrs(kind="sweep"), "space: expected an attribute with text"),
        (
            lambda good: good.assign(importance=good.test_accuracy),
            "importance: expected a variable over rule, parameter",
        ),
    ],
)
def test_bad_results_are_named(spoil, message, tmp_path):
    path = write(spoil(make("grid")), tmp_path / "results.nc")
    with pytest.raises(InputError, match=f"{path}: {message}"):
        read_results(path)


def test_the_source_is_an_architecture():
    with pytest.raises(InputError, match="source: 'conv' is not known"):
        check_results(make("transfer").assign_attrs(source="conv"))


def test_the_space_of_a_search_has_its_values():
    good = make("sweep").assign_attrs(space='{"lr": {}, "amp": {}}', map='["lr", "amp"]')
    good = good.assign(lr=good.steps, amp=good.status)
    check_results(good)
    with pytest.raises(InputError, match="amp: expected a variable over rule, trial"):
        check_results(good.drop_vars("amp"))
    with pytest.raises(InputError, match="lr: expected a variable over rule, trial"):
        check_results(good.assign(lr=good.steps.isel(trial=0)))
    for wrong in ('["lr"]', '["lr", "lr"]', '["lr", "decay"]', "3", "", '[["lr"], "amp"]'):
        with pytest.raises(InputError, match="map: expected two parameters of the space"):
            check_results(good.assign_attrs(map=wrong))


def test_files_that_are_none(tmp_path):
    path = tmp_path / "results.nc"
    with pytest.raises(InputError, match="there are no results"):
        read_results(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n, so to say")
    with pytest.raises(InputError, match="is not a results file"):
        read_results(path)
    write(make("grid"), path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="is not a results file"):
        read_results(path)


def test_files_that_point_elsewhere_or_unpack_to_much(tmp_path):
    path = write(make("grid"), tmp_path / "results.nc")
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(path, "a") as file:
        file.create_dataset("note", (8,), "u1", external=[(str(tmp_path / "secret"), 0, 8)])
    with pytest.raises(InputError, match="note: lies in another file"):
        read_results(path)
    with h5py.File(path, "a") as file:
        del file["note"]
        file["note"] = h5py.ExternalLink("other.nc", "/x")
    with pytest.raises(InputError, match="note: is a link"):
        read_results(path)
    with h5py.File(path, "a") as file:
        del file["note"]
        file.create_dataset("note", (2**40,), "u1", chunks=(2**20,), compression="gzip")
    with pytest.raises(InputError, match="note: is larger in memory than a file of"):
        read_results(path)


def test_a_folder_is_gathered_by_kind(tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        gather(tmp_path)
    write(make("sweep"), tmp_path / "sweeps" / "small" / "results.nc")
    write(make("sweep"), tmp_path / "tuning" / "bp" / "results.nc")  # a search for the grid's settings is no evidence
    write(make("transfer"), tmp_path / "transfers" / "deep" / "results.nc")
    evidence = gather(tmp_path)
    assert evidence.grid is None
    assert list(evidence.sweeps) == ["small"]
    assert list(evidence.transfers) == ["deep"]
    write(make("grid"), tmp_path / "results.nc")
    assert gather(tmp_path).grid.identical(make("grid"))
    assert list(gather(tmp_path / "sweeps" / "small").sweeps) == ["small"]


@pytest.mark.parametrize(("kind", "name"), [("grid", "test_accuracy"), ("sweep", "validation_accuracy")])
def test_chance(kind, name):
    results = make(kind)
    assert np.isnan(chance(results))
    assert chance(results.assign_attrs(classes=np.int64(4))) == 0.25
    assert np.isnan(chance(results.assign_attrs(classes="many")))
    results["status"][0, 0] = "diverged"
    results[name][0, 0] = 0.1
    assert chance(results) == 0.1
