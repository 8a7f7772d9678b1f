"""Cells on a dask cluster that somebody else has started, and all that can be wrong with it."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

import wtdiag
from tests.studies.engine.test_workers import LONG, TINY, Listed, is_still, wait_for
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import read_json
from wtdiag.probes.version import __version__
from wtdiag.studies.engine.cell import Cell, outcome_of
from wtdiag.studies.engine.slurm import slurm_script
from wtdiag.studies.engine.task import Order, train
from wtdiag.studies.engine.workers import Workers
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.fit import Training

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def address(cluster):
    return cluster.scheduler_address


def weights(path):
    return [file.read_bytes() for file in sorted(path.glob("snapshots/*"))]


def test_cells_are_trained_there_as_they_are_here(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the worker stays where it was: paths must not depend on that
    cells = [Cell(Path(rule), Settings(rule=rule, data_dir="there", **TINY), watch=True) for rule in ("fa", "sa")]
    source = Listed(*cells, prune="")
    with Workers(scheduler=address) as workers:
        workers.run(source)
    assert [source.outcomes[cell.path.name] for cell in cells] == [outcome_of(cell.path) for cell in cells]
    assert len(source.states) == 2
    for cell in cells:
        here = tmp_path / f"here-{cell.path}"
        for _ in Training(cell.settings, here):
            pass
        assert weights(tmp_path / cell.path) == weights(here) != []
        assert read_json(cell.path / "config.json")["settings"]["data_dir"] == str(tmp_path / "there")


def test_a_worker_that_cannot_be_used_is_named(address, tmp_path, monkeypatch):
    def hide():
        sys.modules["wtdiag.probes.version"] = None

    def show():
        del sys.modules["wtdiag.probes.version"]

    source = Listed(Cell(tmp_path / "fa", Settings(rule="fa", **TINY)))
    with Client(address, set_as_default=False) as client:
        client.run(hide)
        try:
            with pytest.raises(InputError, match=r"^scheduler: 'tcp://\S+': its worker tcp://\S+ lacks wtdiag; expect"):
                Workers(scheduler=address)
        finally:
            client.run(show)
    monkeypatch.setattr("wtdiag.diagnostics.analysis.cluster.__version__", "9.9")
    with pytest.raises(InputError, match=rf"its worker tcp://\S+ has wtdiag {__version__}; expected 9.9 on all$"):
        Workers(scheduler=address)
    monkeypatch.undo()
    monkeypatch.setattr("wtdiag.studies.engine.link.__version__", "9.9")  # as if it had come later
    with (
        pytest.raises(InputError, match=rf"^scheduler: worker tcp://\S+ has wtdiag {__version__}, not 9.9$"),
        Workers(scheduler=address) as workers,
    ):
        workers.run(source)
    assert source.outcomes["fa"].status == "interrupted"
    assert not (tmp_path / "fa").exists()


def test_a_worker_that_does_not_see_the_folder_is_named(address, tmp_path):
    cell = Cell(tmp_path / "fa", Settings(rule="fa", **TINY))
    with Client(address, set_as_default=False) as client:
        future = client.submit(train, cell, Order("k", "t", __version__, tmp_path / "elsewhere"), key="k")
        with pytest.raises(InputError, match=r"worker tcp://\S+ does not see \S+/elsewhere; expected the same file"):
            future.result()


def test_a_gpu_that_nobody_has_is_one_line(address, tmp_path):
    cells = [Cell(tmp_path / name, Settings(rule="fa", device=name, **TINY)) for name in ("auto", "cpu", "cuda")]
    source = Listed(*cells)
    with (
        pytest.raises(
            InputError, match=r"^device: cell cuda asks for 'cuda', and no worker of 'tcp://\S+' has the res"
        ),
        Workers(scheduler=address) as workers,
    ):
        workers.run(source)
    assert [source.outcomes[name].status for name in ("auto", "cpu")] == ["finished", "finished"]


def test_a_training_stops_when_its_study_is_gone(address, tmp_path):
    cell = Cell(tmp_path / "long", Settings(rule="fa", **LONG))
    client = Client(address, set_as_default=False)
    order = Order("long", "topic", __version__, tmp_path)
    future = client.submit(train, cell, order, key=order.key)
    metrics = cell.path / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.stat().st_size)
    client.close()
    wait_for(lambda: is_still([metrics]))
    wait_for(lambda: read_json(cell.path / "config.json")["status"] == "interrupted")
    del future


def test_a_cluster_without_workers_any_more_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("wtdiag.studies.engine.link.WORKER_SECONDS", 0.0)
    monkeypatch.setattr("wtdiag.studies.engine.link.LOOK_SECONDS", 0.1)
    source = Listed(Cell(tmp_path / "sa", Settings(rule="sa", **TINY)))
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Workers(scheduler=cluster.scheduler_address) as workers,
    ):
        cluster.scale(0)
        wait_for(lambda: not workers.link._client.nthreads())
        with pytest.raises(InputError, match=r"^scheduler: 'tcp://\S+' has had no workers for 0 s$"):
            workers.run(source)
    assert source.outcomes["sa"].status == "interrupted"


def test_a_scheduler_that_is_lost_is_one_line(cluster, address, tmp_path, monkeypatch):
    monkeypatch.setattr("wtdiag.studies.engine.workers.PATIENCE", 0.5)
    monkeypatch.setattr("wtdiag.diagnostics.analysis.cluster.CONNECT_SECONDS", 1)
    # The last test: the cluster does not come back.
    source = Listed(Cell(tmp_path / "sa", Settings(rule="sa", **LONG), watch=True), act=lambda _: cluster.close())
    with (
        pytest.raises(
            InputError, match=r"^scheduler: 'tcp://\S+' was lost \(.*\); call the command again to continue$"
        ),
        Workers(scheduler=address) as workers,
    ):
        workers.run(source)
    assert source.outcomes["sa"].status == "interrupted"


def test_one_way_to_run_at_a_time(capsys):
    with pytest.raises(SystemExit) as end:
        wtdiag.main(["study", "small/depth-gap", "--dry-run", "--scheduler", "tcp://127.0.0.1:1"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "wtdiag: dry-run, scheduler: expected one of them, got 2\n"


SRUN = """#!/bin/sh
exec "$@"
"""
STUDY = """
title = "On Slurm"
[settings]
epochs = 1
depth = 2
width = 8
snapshots = 2
batch_size = 256
[[grid]]
factors.rule = ["bp", "fa"]
factors.seed = [0, 1]
"""


@pytest.mark.slow
def test_the_slurm_script_runs_a_study(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(STUDY)
    words = ["--out", str(tmp_path / "a b"), "--device", "cpu", "--jobs", "3", "--format", "html", "--slurm-script"]
    with pytest.raises(SystemExit) as end:
        wtdiag.main(["study", str(tmp_path / "mine.toml"), *words])
    assert not end.value.code
    script = tmp_path / "mine.sbatch"
    script.write_text(capsys.readouterr().out)
    assert "#SBATCH --ntasks=3" in script.read_text()
    assert "gpu" not in script.read_text().lower()
    assert not (tmp_path / "a b").exists()
    srun = tmp_path / "bin" / "srun"  # stands in for Slurm's, which starts the workers on their nodes
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    given = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_CPUS_PER_TASK": "1",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
    }
    path = os.pathsep.join([str(srun.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", str(script)],
        env=os.environ | given | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a b" / "study.html").exists()
    runs = sorted((tmp_path / "a b" / "cells").glob("*/config.json"))
    assert [read_json(run)["status"] for run in runs] == ["finished"] * 4


def test_a_script_for_gpus_asks_for_them():
    script = slurm_script("full/x", ["wtdiag", "study", "a b.toml"], 4, gpu=True)
    assert "#SBATCH --gpus-per-task=1\n" in script
    assert "--resources GPU=1 " in script
    assert "wtdiag study 'a b.toml' --scheduler" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
