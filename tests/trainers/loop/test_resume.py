"""Killed at any instant, a run goes on to the same end, bitwise."""

import json
import multiprocessing
import os
import random
import signal
import time
from itertools import islice
from shutil import copytree

import pytest
import torch

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run, write_json
from wtdiag.trainers.config.settings import DEFAULTS, Settings
from wtdiag.trainers.loop import fit
from wtdiag.trainers.loop.fit import Training, start
from wtdiag.trainers.loop.launch import runs_to_train, status, stored
from wtdiag.trainers.record import checkpoint
from wtdiag.trainers.record.recorder import Recorder

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
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == (whole / "checkpoint.pt").read_bytes()


@pytest.mark.slow
def test_killed_at_twenty_random_instants(whole, tmp_path):
    out = tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wtdiag.trainers.loop.fit"])
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
    assert (out / "checkpoint.pt").read_bytes() == (whole / "checkpoint.pt").read_bytes()


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


def killed(settings, out, steps):
    """Leave in ``out`` what a run killed after so many steps would."""
    training = Training(settings, out.with_name("alive"))
    for _ in islice(training, steps):
        pass
    copytree(training.out, out)
    return out


@pytest.mark.parametrize("steps", [31, 34])
def test_trouble_after_a_kill_keeps_the_same_copy(monkeypatch, tmp_path, steps):
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", -1.0)
    coefficients = {"self": "window:60:1.5:1.54", "decay": 0.0}  # step 35 is a jump
    settings = Settings(rule="sa", epochs=3, snapshots=2, coefficients=coefficients)
    train(settings, tmp_path / "whole")
    assert 30 in open_run(tmp_path / "whole").steps
    out = killed(settings, tmp_path / "run", steps)
    assert checkpoint.load(out)["step"] == 30
    train(settings, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_run_with_something_to_lose_is_not_begun_anew(tmp_path):
    settings = Settings(rule="fa", epochs=1)
    model = Training(settings, tmp_path / "unused").model
    with Recorder(model, tmp_path / "mine") as recorder:
        recorder.snapshot(0)
        recorder.close("interrupted")
    killed(settings, tmp_path / "copied", 3)
    (tmp_path / "copied" / "checkpoint.pt").unlink()
    for out in (tmp_path / "mine", tmp_path / "copied"):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(InputError, match=f"{out.name} has no checkpoint to resume from"):
            Training(settings, out, resume=True)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    settings = Settings(rule="fa", epochs=0.3)
    train(settings, tmp_path / "whole")
    Training(settings, tmp_path / "begun").begin()
    train(settings, tmp_path / "begun")
    assert contents(tmp_path / "begun") == contents(tmp_path / "whole")


@pytest.mark.parametrize("how", [{"resume": True}, {"force": True}, {}])
def test_a_kill_before_the_config_leaves_nothing_in_the_way(tmp_path, how):
    out = tmp_path / "run"
    (out / "snapshots").mkdir(parents=True)
    (out / "metrics.jsonl").touch()
    (out / ".config.json.0a1b2c3d.tmp").write_bytes(b"{")
    for _ in Training(Settings(rule="fa", epochs=0.1), out, **how):
        pass
    assert status(out) == "finished"
    assert not list(out.glob(".*.tmp"))


@pytest.mark.parametrize("call", range(1, 20))
def test_a_kill_while_a_run_is_replaced_leaves_one_run_or_the_other(monkeypatch, tmp_path, call):
    out = tmp_path / "run"
    train(Settings(rule="fa", epochs=0.1), out)
    old = contents(out)
    del old["files"]
    count = 0

    def dying(function):
        def call_or_die(*args, **kwargs):
            nonlocal count
            count += 1
            if count == call:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return call_or_die

    training = Training(Settings(rule="bp", epochs=0.1), out, force=True)
    with monkeypatch.context() as patch:
        for name in ("unlink", "replace", "mkdir"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            training.begin()
        except KeyboardInterrupt:
            pass
        else:
            assert call > 12, "it takes more calls than that: they are no longer seen"
            return
    if open_run(out).config["settings"]["rule"] == "fa":
        assert {**contents(out), "files": None} == {**old, "files": None}
    else:
        assert not (out / "checkpoint.pt").exists()
        assert status(out) == "running"
    del training
    for _ in Training(Settings(rule="bp", epochs=0.1), out, force=True):
        pass
    assert status(out) == "finished"


def test_two_processes_do_not_record_one_run(tmp_path):
    settings = Settings(rule="fa", epochs=1)
    steps = iter(Training(settings, tmp_path / "run"))
    next(steps)
    for how in ({"resume": True}, {"force": True}):
        with pytest.raises(InputError, match="run: is being recorded by another process"):
            Training(settings, tmp_path / "run", **how)
    with pytest.raises(InputError, match="run: is being recorded by another process"):
        Recorder.resume(Training(settings, tmp_path / "other").model, tmp_path / "run", 0)
    steps.close()
    train(settings, tmp_path / "run")


def test_all_folders_are_there_before_the_first_step(tmp_path):
    start(runs_to_train(["fa", "kp"], {"epochs": 0.2}, out=tmp_path / "both"))
    assert [path.name for path in runs_to_train([], {}, out=tmp_path / "both", resume=True)] == ["fa", "kp"]


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_or_destroyed_unless_all_can_start(tmp_path, force):
    train(Settings(rule="fa", epochs=0.1), tmp_path / "all" / "fa")
    before = contents(tmp_path / "all" / "fa")
    (tmp_path / "all" / "kp").mkdir()
    (tmp_path / "all" / "kp" / "thesis.txt").touch()
    rules = ["fa", "kp"] if force else ["bp", "kp"]
    with pytest.raises(InputError, match="kp: holds files but no run"):
        start(runs_to_train(rules, {"epochs": 0.1}, out=tmp_path / "all"), force=force)
    assert contents(tmp_path / "all" / "fa") == before
    assert not (tmp_path / "all" / "bp").exists()


def test_resume_and_force_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="resume, force: expected one of them"):
        start({tmp_path / "run": Settings(rule="fa", epochs=1)}, resume=True, force=True)
    assert not (tmp_path / "run").exists()


def test_a_run_may_go_on_elsewhere(tmp_path):
    out = killed(Settings(rule="fa", epochs=0.3, device="auto"), tmp_path / "run", 2)
    moved = {"device": "cpu", "data_dir": "/elsewhere", "download": True}
    (settings,) = runs_to_train([], moved, out=out, resume=True).values()
    assert (settings.device, settings.data_dir, settings.download) == ("cpu", "/elsewhere", True)
    with pytest.raises(InputError, match="seed=0, not 1"):
        runs_to_train([], {"seed": 1}, out=out, resume=True)


def test_resuming_what_is_not_there_needs_a_rule_or_a_config(tmp_path):
    for given in ({}, {"lr": 0.05}, {"coefficients": {"self": 0.3}}):
        with pytest.raises(InputError, match=r"^resume: .*typo holds no run; expected a run directory, or the rule of"):
            runs_to_train([], given, out=tmp_path / "typo", resume=True)
    with pytest.raises(InputError, match=r"^resume: .*fa-mlp-digits-12345 holds no run"):
        runs_to_train([], {"seed": 12345}, resume=True)
    config = tmp_path / "my.toml"
    config.write_text("lr = 0.05")
    for rules, source, lr in ((["fa"], None, None), ([], config, 0.05)):
        (settings,) = runs_to_train(rules, {}, config=source, out=tmp_path / "new", resume=True).values()
        assert (settings.rule, settings.lr) == ("fa", lr)


def test_a_run_killed_as_it_finished_still_knows_its_loss(tmp_path):
    out = tmp_path / "run"
    settings = Settings(rule="fa", epochs=0.3, depth=2)
    *_, whole = Training(settings, out)
    config = open_run(out).config
    write_json(out / "config.json", config | {"status": "running"})
    before = (out / "checkpoint.pt").read_bytes()
    *_, progress = Training(settings, out, resume=True)
    assert (progress.loss, progress.accuracy) == (whole.loss, whole.accuracy)
    assert progress.loss == open_run(out).metrics.loss.iloc[-1]
    assert open_run(out).config == config
    assert (out / "checkpoint.pt").read_bytes() == before


def test_a_random_state_of_more_or_fewer_devices_will_do(tmp_path):
    settings = Settings(rule="fa", epochs=1)
    out = killed(settings, tmp_path / "run", 2)
    saved = checkpoint.load(out)
    for states in ([*saved["random"], torch.zeros(16, dtype=torch.uint8)], []):
        checkpoint.save(out, saved | {"random": states})
        assert Training(settings, out, resume=True).progress.step == saved["step"]


@pytest.mark.parametrize(
    "damage",
    [
        {"step": 10**9}, {"step": -1}, {"step": 1.5}, {"step": "1"}, {"step": None}, {"step": True},
        {"loss": None}, {"accuracy": 1}, {"test_accuracy": "high"}, {"test_accuracy": None},
        {"model": 3}, {"model": {}}, {"model": {"fc1.weight": "x"}},
        {"learner": 3}, {"learner": {}}, {"learner": {"forward": {"state": 3, "param_groups": 4}}},
        {"learner": {"forward": "momentum"}},
        {"trouble": 3}, {"trouble": {}}, {"trouble": {"left": "x", "due": [], "windows": {}, "first": {}}},
        {"random": 3}, {"random": [3]}, {"random": [torch.zeros(3)]},
        {"layers": 3}, {"layers": {}}, {"layers": {"fc1": 3}},
    ],
    ids=repr,
)  # fmt: skip
def test_a_checkpoint_of_wrong_types_is_named(tmp_path, damage):
    settings = Settings(rule="fa", epochs=1, depth=3)
    out = killed(settings, tmp_path / "run", 2)
    checkpoint.save(out, checkpoint.load(out) | damage)
    before = contents(out)
    with pytest.raises(InputError, match=r"checkpoint\.pt: does not fit the run's settings \(.+\)$"):
        Training(settings, out, resume=True)
    assert contents(out) == before


def test_optimizer_state_of_another_shape_is_named(tmp_path):
    settings = Settings(rule="fa", epochs=1)
    out = killed(settings, tmp_path / "run", 2)
    saved = checkpoint.load(out)
    trained = Training(settings, tmp_path / "other")
    for _ in islice(trained, 2):
        pass
    saved["learner"] = trained.learner.state_dict()
    saved["learner"]["forward"]["state"][0]["momentum_buffer"] = torch.zeros(3)
    checkpoint.save(out, saved)
    with pytest.raises(InputError, match=r"checkpoint\.pt: .*momentum_buffer has shape \(3,\)"):
        Training(settings, out, resume=True)


def test_a_run_keeps_the_default_rate_that_it_began_with(tmp_path, monkeypatch):
    for _ in Training(Settings(rule="fa", epochs=0.1, snapshots=2), tmp_path / "run"):
        break
    assert open_run(tmp_path / "run").config["settings"]["lr"] == 0.05
    settings = stored(tmp_path / "run", Settings(rule="fa", epochs=0.1, snapshots=2).as_dict())
    assert settings.lr == 0.05
    with pytest.raises(InputError, match=r"was made with epochs=0\.1, not 10"):
        stored(tmp_path / "run", Settings(rule="fa", snapshots=2).as_dict())
    for _ in Training(Settings(rule="fa", epochs=0.1, snapshots=2, lr=0.3), tmp_path / "other"):
        break
    with pytest.raises(InputError, match=r"was made with lr=0\.3, not None"):
        stored(tmp_path / "other", Settings(rule="fa", epochs=0.1, snapshots=2).as_dict())


@pytest.mark.parametrize("newer", sorted(set(DEFAULTS) - {"rule"}))
def test_a_run_that_was_made_before_a_setting_existed_goes_on_with_its_default(tmp_path, newer):
    settings = Settings(rule="fa").as_dict()
    (tmp_path / "config.json").write_text(
        json.dumps({"settings": {name: value for name, value in settings.items() if name != newer}})
    )
    assert stored(tmp_path, settings).as_dict() == settings
