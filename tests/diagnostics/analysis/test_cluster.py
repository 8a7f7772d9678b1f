"""The same work on a dask cluster of two processes, to the same numbers."""

import os
import socket
import time

import numpy as np
import pytest
import xarray as xr
from distributed import LocalCluster

import wtdiag.diagnostics.analysis.cluster
from wtdiag.diagnostics.analysis.analyze import analyze
from wtdiag.diagnostics.analysis.cluster import cluster
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import LayerArrays, Snapshot, open_run, snapshot_path, write_json, write_snapshot

STEPS = range(0, 60, 10)


@pytest.fixture(scope="module")
def address():
    with LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0") as workers:
        yield workers.scheduler_address


@pytest.fixture
def run(tmp_path):
    def weights(seed, *shape):
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    write_json(tmp_path / "config.json", {"status": "finished"})
    (tmp_path / "snapshots").mkdir()
    for step in STEPS:
        layers = {
            "conv": LayerArrays(weights(step, 6, 3, 2, 2), weights(9, 6, 3, 2, 2), "Conv2d", 0, True, False),
            "fc": LayerArrays(weights(step + 1, 10, 6), weights(step + 2, 10, 6), "Linear", 1),
        }
        write_snapshot(snapshot_path(tmp_path, step), Snapshot(step, layers))
    return open_run(tmp_path)


def signals(step):
    random = np.random.default_rng(step)
    names = ("delta", "delta_exact", "sent", "sent_local", "sent_exact")
    return {"fc": {name: random.normal(size=(8, 10)) for name in names}}


def test_equals_the_local_result(run, address):
    seen = []
    local = analyze(run, signals=signals, attribution=attribute)
    remote = analyze(
        run, signals=signals, attribution=attribute, scheduler=address,
        progress=lambda steps: (seen.append(step) or step for step in steps),
    )  # fmt: skip
    xr.testing.assert_identical(remote, local)
    assert local.error_angle.notnull().any()
    assert local.attribution_angle.notnull().any()
    assert seen == list(STEPS)
    alone = analyze(run, ["weight_angle"], scheduler=address)
    xr.testing.assert_identical(alone, analyze(run, ["weight_angle"]))


def attribute(step):
    return {"fc": (float(step), 0.5)}


class Counter:
    """Counts its own calls; fails if one begins before the last has ended."""

    def __init__(self):
        self.count, self.busy = 0, False

    def __call__(self, step):
        assert not self.busy
        self.busy = True
        time.sleep(0.05)
        self.count, self.busy = self.count + 1, False
        return os.getpid(), self.count


def test_a_worker_keeps_the_function_and_takes_one_step_at_a_time(address):
    with cluster(address) as each:
        answers = list(each(Counter(), range(12)))
        again = list(each(Counter(), range(2)))
    workers = {pid for pid, _ in answers}
    assert len(workers) == 2
    assert os.getpid() not in workers
    for worker in workers:
        counts = sorted(count for pid, count in answers if pid == worker)
        assert counts == list(range(1, len(counts) + 1))
    assert all(count <= 2 for _, count in again)  # another call starts anew


def test_input_errors_come_through(run, address):
    snapshot_path(run.path, 20).write_bytes(b"")
    with pytest.raises(InputError, match=r"step-00000020.nc: is not a whole wtdiag snapshot"):
        analyze(run, scheduler=address)


def dies(step):
    os._exit(1)


def test_workers_that_die():
    import dask

    settings = {"distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as workers,
        pytest.raises(InputError, match=r"scheduler: 'tcp://.*' lost step 3 \(.*\)$"),
        cluster(workers.scheduler_address) as each,
    ):
        list(each(dies, [3]))


def test_a_cluster_without_workers(monkeypatch):
    monkeypatch.setattr(wtdiag.diagnostics.analysis.cluster, "WORKER_SECONDS", 0.2)
    with (
        LocalCluster(n_workers=0, processes=True, dashboard_address=":0") as workers,
        pytest.raises(InputError, match=r"scheduler: 'tcp://.*' has no workers after 0.2 s"),
        cluster(workers.scheduler_address),
    ):
        pass


@pytest.mark.parametrize(
    "address",
    ["", "head:8786", "tcp://", "tcp://head", "tcp://head:0", "tcp://head:99999", "http://head:80", "tcp://[:1"],
)
def test_what_is_no_address(address):
    with (
        pytest.raises(InputError, match=r"scheduler: '.*' is not an address; expected tcp://HOST:PORT$"),
        cluster(address),
    ):
        pass


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(wtdiag.diagnostics.analysis.cluster, "CONNECT_SECONDS", 0.3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"scheduler: '{address}' cannot be reached \(.*\)$"), cluster(address):
            pass
