"""Earlier values are used again where nothing has changed, kept where they cannot be measured now, and never stale."""

import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import wtdiag
from tests.diagnostics.analysis.test_analyze import record
from wtdiag.cli import main
from wtdiag.diagnostics.analysis import origins
from wtdiag.diagnostics.analysis.analyze import analyze, read_analysis, write_analysis
from wtdiag.probes import PROBES
from wtdiag.probes.records.schema import read_json, snapshot_path, write_json
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.workflow import enrich


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    for _ in Training(Settings(rule="wm", depth=2, width=8, epochs=0.2, snapshots=3), folder):
        pass
    write_analysis(wtdiag.analyze(folder), folder / "analysis.nc")
    return folder


NAMES = ("weight_angle", "forward_norm", "error_angle", "relaxation_time", "relative_update")


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def measured(run, **options):
    """The steps that an analysis measures, and the analysis."""
    seen = []

    def progress(steps):
        for step in steps:
            seen.append(step)
            yield step

    return seen, wtdiag.analyze(run, **{"probes": NAMES, "progress": progress} | options)


def fresh(run, probes=NAMES):
    (run / "analysis.nc").unlink()
    return wtdiag.analyze(run, probes)


def test_what_has_not_changed_is_not_measured_again(run):
    seen, analysis = measured(run, probes=None)
    assert seen == []
    xr.testing.assert_identical(analysis, fresh(run, None))


def test_a_run_that_goes_on_is_measured_where_it_went_on(run):
    steps = wtdiag.open_run(run).steps.tolist()
    last = snapshot_path(run, steps[-1])
    moved = shutil.move(last, run / "aside.nc")
    write_analysis(fresh(run, None), run / "analysis.nc")
    shutil.move(moved, last)
    seen, analysis = measured(run, probes=None)
    assert seen == steps[-1:]
    xr.testing.assert_identical(analysis, fresh(run, None))


def change_a_snapshot(run):
    step = int(wtdiag.open_run(run).steps[1])
    with h5py.File(snapshot_path(run, step), "r+") as file:
        file["fc2/forward"][0, 0] += 1e-3
    return [step]


def change_the_batch(run):
    with h5py.File(run / "probe_batch.nc", "r+") as file:
        file["inputs"][:] = file["inputs"][:] * 2
    return "all"


def change_the_network(run):
    config = read_json(run / "config.json")
    config["settings"]["label_smoothing"] = 0.1
    write_json(run / "config.json", config)
    return "all"


def change_the_rates(run):
    path = run / "metrics.jsonl"
    lines = map(json.loads, path.read_text().splitlines())
    path.write_text("".join(json.dumps(line | {"feedback_lr": 0.5}) + "\n" for line in lines))
    return "all"


@pytest.mark.parametrize("change", [change_a_snapshot, change_the_batch, change_the_network, change_the_rates])
def test_what_has_changed_is_measured_again(change, run):
    steps = wtdiag.open_run(run).steps.tolist()
    expected = change(run)
    seen, analysis = measured(run)
    assert seen == (steps if expected == "all" else expected)
    xr.testing.assert_identical(analysis, fresh(run))


def test_all_source_that_values_depend_on_is_known():
    root = Path(origins.__file__).resolve().parents[2]
    assert all(list((root / room).rglob("*.py")) for room in origins._ROOMS)
    assert origins._of_source() == origins._of_source.__wrapped__()


def test_another_version_measures_again(run, monkeypatch):
    monkeypatch.setattr(origins, "_of_source", lambda: "changed")
    assert measured(run)[0] == wtdiag.open_run(run).steps.tolist()


def test_another_probe_measures_again_and_every_time(run, monkeypatch):
    changed = dataclasses.replace(PROBES["weight_angle"], function=lambda forward: float(forward[0, 0]))
    monkeypatch.setitem(PROBES, "weight_angle", changed)
    for _ in range(2):
        seen, analysis = measured(run)
        assert seen == wtdiag.open_run(run).steps.tolist()
        write_analysis(analysis, run / "analysis.nc")


def test_a_network_of_ones_own_is_measured_every_time(run):
    network = wtdiag.open_run(run).model(0)
    write_analysis(wtdiag.analyze(run, NAMES, model=network), run / "analysis.nc")
    assert measured(run, model=network)[0] == measured(run)[0] == wtdiag.open_run(run).steps.tolist()


def test_fast_measures_less_and_takes_nothing_away(run):
    before = read_analysis(run / "analysis.nc")
    (run / "analysis.nc").unlink()
    fast = wtdiag.analyze(run, fast=True)
    assert {"weight_angle", "error_angle", "step_size_number"} <= set(fast) < set(before)
    assert not {"attribution_loss", "predicted_angle", "forward_stable_rank"} & set(fast)
    for name in fast:
        xr.testing.assert_identical(fast[name], before[name])
    richer, kept = origins.enriched(fast, before)
    assert set(kept) == set(before) - set(fast)
    assert set(richer) == set(before)
    xr.testing.assert_identical(richer[sorted(richer)], before[sorted(before)].assign_attrs(fast.attrs))


def own_run(path):
    torch.manual_seed(0)
    model = transport_free(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), "sa")
    with Recorder(model, path, probe_batch=(torch.randn(8, 6), torch.arange(8) % 3)) as recorder:
        recorder.snapshot(0)
    return model


def test_a_richer_analysis_is_kept(tmp_path, capsys):
    model = own_run(tmp_path / "run")
    rich = wtdiag.analyze(tmp_path / "run", model=model)
    write_analysis(rich, tmp_path / "run" / "analysis.nc")
    with pytest.raises(SystemExit):
        main(["analyze", str(tmp_path / "run"), "--format", "html"])
    said = " ".join(capsys.readouterr().err.split())
    assert "kept from the earlier analysis of these snapshots: " in said
    now = read_analysis(tmp_path / "run" / "analysis.nc")
    assert set(now) == set(rich)
    np.testing.assert_array_equal(now.error_angle, rich.error_angle)
    with h5py.File(snapshot_path(tmp_path / "run", 0), "r+") as file:
        file["2/forward"][0, 0] += 1e-3
    poor = wtdiag.analyze(tmp_path / "run")
    assert "error_angle" not in poor
    assert enrich(poor, tmp_path / "run") == (poor, [])


def test_analyses_of_earlier_versions_say_nothing_of_their_snapshots(tmp_path):
    run = record(tmp_path, [0, 10])
    analysis = analyze(run)
    old = analysis.assign(own=analysis.weight_angle).drop_attrs()
    assert origins.enriched(analysis, old) == (analysis, [])
    assert not origins.unchanged(old, ["weight_angle"], origins.origins(run, [0, 10], [], None))


def test_a_file_of_holes_is_not_read(tmp_path):
    path = tmp_path / "holes.nc"
    path.write_bytes(b"x" * 5000)
    assert origins._of_file(path)
    with path.open("r+b") as file:
        file.truncate(2**36)
    assert not origins._of_file(path)


def test_long_runs_are_known_again_too(tmp_path):
    steps = list(range(0, 20_000, 10))
    of_step = {step: origins.Origin(f"{step:016x}", f"{step:016x}") for step in steps}
    values = xr.DataArray(np.ones((len(steps), 1)), {"step": steps, "layer": ["fc"]}, name="weight_angle")
    about = origins.attrs(["weight_angle"], of_step)
    write_analysis(values.to_dataset().assign_attrs(about), tmp_path / "analysis.nc")
    assert origins.unchanged(read_analysis(tmp_path / "analysis.nc"), ["weight_angle"], of_step) == set(steps)
