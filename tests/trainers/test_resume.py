"""Killed at any instant, a run goes on to the same end, bitwise."""

import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from probes.errors import InputError
from probes.schema import open_run
from trainers import checkpoint, fit
from trainers.fit import Training
from trainers.launch import status
from trainers.settings import Settings

# Everything that holds state: noise in the rule, in the updates, momentum, Adam on B, batch norm, phases, schedules.
SETTINGS = Settings(
    rule="wm",
    coefficients={"amp": "linear:0.2:0.05"},
    epochs=12,
    width=24,
    seed=3,
    feedback_optimizer="adam",
    feedback_lr=0.003,
    update_noise=0.01,
    alternate=3,
    delay=0.5,
    snapshots=12,
    snapshot_every=37,
)


def train(settings, out, every=None):
    torch.set_num_threads(1)
    if every is not None:
        fit.CHECKPOINT_SECONDS = every
    training = Training(settings, out, resume=True)
    for _ in training:
        pass


def contents(run):
    """Everything a run directory holds but how fast it was made."""
    metrics = open_run(run).metrics.drop(columns="throughput")
    snapshots = {path.name: path.read_bytes() for path in (run / "snapshots").iterdir()}
    return {
        "files": sorted(path.name for path in run.iterdir()),
        "metrics": metrics.to_csv(),
        "snapshots": snapshots,
        "config": (run / "config.json").read_text(),
        "probe batch": (run / "probe_batch.nc").read_bytes(),
    }


def logged(run):
    """Steps that the metrics have, cheaply."""
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def assert_same_state(one, two):
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same_state(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for pair in zip(one, two, strict=True):
            assert_same_state(*pair)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(SETTINGS, out)
    return out


def test_same_seed_gives_the_same_bytes(whole, tmp_path):
    torch.rand(7)  # the caller's random state is nobody's business
    train(SETTINGS, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole)


@pytest.mark.slow
def test_killed_at_twenty_random_instants(whole, tmp_path):
    out = tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainers.fit"])
    draw = random.Random(0)
    # Some kills while the run starts up, the others after so many logged steps and a moment more.
    instants = [0] * 4 + sorted(draw.sample(range(1, 270), 16))
    reached = []
    for instant in instants:
        process = context.Process(target=train, args=(SETTINGS, out, 0.0))
        process.start()
        while process.is_alive() and logged(out) < instant:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.02 if instant else 0.5))
        assert process.is_alive(), "over before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        reached.append(checkpoint.load(out)["step"] if (out / "checkpoint.pt").exists() else -1)
    assert reached == sorted(reached)
    assert len(set(reached)) > 8
    train(SETTINGS, out)
    assert contents(out) == contents(whole)
    assert_same_state(checkpoint.load(out), checkpoint.load(whole))


def test_resuming_needs_no_run(tmp_path):
    train(Settings(rule="fa", epochs=0.2), tmp_path / "run")
    assert status(tmp_path / "run") == "finished"


def test_a_finished_run_is_left_alone(whole):
    before = contents(whole)
    with pytest.raises(InputError, match="finished already"):
        Training(SETTINGS, whole, resume=True)
    with pytest.raises(InputError, match="exists already"):
        Training(SETTINGS, whole)
    assert contents(whole) == before


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_corrupt_checkpoint_is_named_and_kept(tmp_path, damage):
    out = tmp_path / "run"
    steps = iter(Training(Settings(rule="fa", epochs=1), out))
    next(steps)
    steps.close()
    path = out / "checkpoint.pt"
    content = path.read_bytes()[:-100] if damage is None else damage
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be read"):
        Training(Settings(rule="fa", epochs=1), out, resume=True)
    assert path.read_bytes() == content


def test_a_checkpoint_cannot_execute_anything(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    torch.save({"step": 0, "model": os.system}, out / "checkpoint.pt")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        checkpoint.load(out)
