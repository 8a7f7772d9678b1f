"""What goes wrong around a recorder: killed processes, full disks, folders in use, bad arguments."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

import wtdiag.trainers.record.writer
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run, snapshot_path
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.record.recorder import Recorder


def linear(width=3):
    return transport_free(nn.Linear(width, width), "kp")


def fill(model, value):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)


def files(path):
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def run_python(script, *arguments):
    script = textwrap.dedent(script)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def record_limit():
    """Make every file of this process end at a number of bytes, as a full disk would."""
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, old)


def test_a_full_disk_is_told_at_the_next_call_and_leaves_nothing_half_written(record_limit, tmp_path):
    recorder = Recorder(linear(200), tmp_path / "run")
    recorder.snapshot(0)
    recorder.flush()
    record_limit(100_000)
    recorder.snapshot(1)
    with pytest.raises(InputError, match=r"step-00000001\.nc: cannot be written \(.+\)") as caught:
        recorder.flush()
    assert "\n" not in str(caught.value)
    for call in (
        lambda: recorder.snapshot(2),
        lambda: recorder.log(2, loss=1),
        recorder.keep,
        recorder.close,
    ):
        with pytest.raises(InputError, match=r"step-00000001\.nc: cannot be written"):
            call()
    assert [file.name for file in (tmp_path / "run" / "snapshots").iterdir()] == ["step-00000000.nc"]
    run = open_run(tmp_path / "run")
    assert run.config["status"] == "running"
    assert run.layer("model").sizes["step"] == 1


def test_a_failed_write_ends_the_with_block_with_one_error(record_limit, tmp_path):
    def loop():
        with Recorder(linear(200), tmp_path / "run") as recorder:
            record_limit(100_000)
            recorder.snapshot(0)

    with pytest.raises(InputError, match=r"step-00000000\.nc: cannot be written"):
        loop()
    assert open_run(tmp_path / "run").steps.size == 0


def test_a_line_of_metrics_that_does_not_fit_is_not_begun(record_limit, tmp_path):
    with Recorder(linear(), tmp_path / "run") as recorder:
        recorder.log(0, loss=0.5)
        before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
        record_limit(len(before) + 10)
        with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be written \(.+\)"):
            recorder.log(1, loss=0.25)
        assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
        record_limit(1 << 30)
        recorder.log(1, loss=0.25)
    assert open_run(tmp_path / "run").metrics.loss.tolist() == [0.5, 0.25]


def test_a_folder_that_vanishes_is_told(tmp_path):
    recorder = Recorder(linear(), tmp_path / "run")
    (tmp_path / "run" / "snapshots").rmdir()
    recorder.snapshot(0)
    with pytest.raises(InputError, match=r"step-00000000\.nc: cannot be written \(.*No such file or directory"):
        recorder.close()


def test_a_run_that_vanishes_is_told(tmp_path):
    recorder = Recorder(linear(), tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InputError, match=r"metrics\.jsonl: cannot be written \(No such file or directory\)"):
        recorder.close()


def test_a_path_below_a_file_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run: a run directory cannot be made there \(Not a directory\)"):
        Recorder(linear(), tmp_path / "file" / "run")
    with pytest.raises(InputError, match=r"file: a run directory cannot be made there \("):
        Recorder(linear(), tmp_path / "file", force=True)


def test_an_existing_run_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "run"
    with Recorder(linear(), path) as recorder:
        recorder.snapshot(7, loss=1.0)
    left = ("analysis.nc", "findings.json", "report.html", "report.pdf", "probe_batch.nc", "checkpoint.pt")
    for name in ("notes.txt", *left):
        (path / name).write_text("old")
    before = files(path)
    with pytest.raises(InputError, match="run: exists already; choose another path or replace it with force"):
        Recorder(linear(), path)
    assert files(path) == before
    with Recorder(linear(), path, force=True):
        pass
    assert sorted(files(path)) == ["config.json", "metrics.jsonl", "notes.txt"]
    assert (path / "metrics.jsonl").read_bytes() == b""


def test_a_folder_that_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").touch()
    for force in (False, True):
        with pytest.raises(InputError, match=r"holds files but no run; choose another path$"):
            Recorder(linear(), tmp_path, force=force)
    assert sorted(files(tmp_path)) == ["thesis.txt"]


def test_an_empty_folder_will_do(tmp_path):
    Recorder(linear(), tmp_path).close()
    assert open_run(tmp_path).config["status"] == "finished"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda recorder: recorder.snapshot(3), "step: 3 is recorded already in .*run; steps must differ"),
        (lambda recorder: recorder.snapshot(-1), "step: expected a whole number of at least 0, got -1"),
        (lambda recorder: recorder.snapshot(1.5), "step: expected a whole number of at least 0, got 1.5"),
        (lambda recorder: recorder.stage("4"), "step: expected a whole number of at least 0, got '4'"),
        (lambda recorder: recorder.log(True), "step: expected a whole number of at least 0, got True"),
        (lambda recorder: recorder.log(4, loss=[1]), r"loss: expected a number or text to log, got \[1\]"),
        (
            lambda recorder: recorder.log(4, loss=torch.ones(2)),
            "loss: expected a number or text to log, got tensor",
        ),
        (lambda recorder: recorder.log(4, loss=torch.ones(50, 50)), r"got tensor\(\[\[1\., .{0,70}$"),
        (
            lambda recorder: recorder.close("done"),
            "status: 'done' is not known. Choices: finished, diverged, pruned, int",
        ),
    ],
)
def test_bad_arguments_are_refused_and_do_no_harm(call, message, tmp_path):
    with Recorder(linear(), tmp_path / "run") as recorder:
        recorder.snapshot(3)
        with pytest.raises(InputError, match=message):
            call(recorder)
        recorder.snapshot(4, loss=1)
    assert open_run(tmp_path / "run").steps.tolist() == [3, 4]
    assert open_run(tmp_path / "run").config["status"] == "finished"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": nn.Linear(2, 2)}, "Linear: has no converted layer; expected layers from transport_free"),
        ({"config": {"rule": "fa"}}, "config: 'rule' must be a mapping, got 'fa'"),
        ({"config": {"settings": {"path": object()}}}, "config: cannot be kept as JSON"),
        (
            {"probe_batch": (torch.ones(3, 2), torch.ones(4))},
            r"probe_batch: .*got shapes \(3, 2\) and \(4,\)",
        ),
        *(
            ({"probe_batch": batch}, rf"probe_batch: expected \(inputs, targets\), two tensors, got {found}$")
            for batch, found in (
                ({"x": torch.ones(3, 2), "y": torch.ones(3)}, "dict"),
                (torch.ones(2, 3), "Tensor"),
                ((np.ones((3, 2)), np.ones(3)), r"\(ndarray, ndarray\)"),
                ([torch.ones(3, 2)] * 5, r"\(Tensor, Tensor, Tensor, Tensor, …\)"),
                ((), r"\(\)"),
                (3, "int"),
            )
        ),
    ],
)
def test_a_recorder_that_cannot_be_leaves_nothing_behind(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        Recorder(**{"model": linear(), "path": tmp_path / "run", **arguments})
    assert not (tmp_path / "run").exists()


def test_a_closed_recorder_says_so(tmp_path):
    recorder = Recorder(linear(), tmp_path / "run")
    recorder.close()
    recorder.close("interrupted")
    recorder.flush()
    with pytest.raises(InputError, match="run: the recorder is closed"):
        recorder.snapshot(0)
    assert open_run(tmp_path / "run").config["status"] == "finished"


def test_a_loop_that_fails_is_an_interrupted_run(tmp_path):
    def loop():
        with Recorder(linear(), tmp_path / "run") as recorder:
            recorder.snapshot(0)
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        loop()
    assert open_run(tmp_path / "run").config["status"] == "interrupted"
    assert open_run(tmp_path / "run").steps.tolist() == [0]


def test_a_copy_that_fails_gives_its_buffer_back(monkeypatch, tmp_path):
    with Recorder(linear(), tmp_path / "run") as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(wtdiag.trainers.record.writer.Staging, "fill", lambda *_: 1 / 0)
            for _ in range(3):
                with pytest.raises(ZeroDivisionError):
                    recorder.snapshot(0)
        for step in range(5):
            recorder.snapshot(step)


def record(path, until, kill_at=None):
    """Train and record with a checkpoint every four steps; stop at ``kill_at`` as if killed, and resume."""
    model = linear()
    start, checkpoint = 0, None
    recorder = Recorder(model, path)
    while True:
        for step in range(start, until + 1):
            fill(model, step)
            recorder.log(step, loss=1.0 / (step + 1))
            if step % 3 == 0:
                recorder.snapshot(step)
            if step % 4 == 0:
                recorder.stage(step)
                recorder.flush()
                checkpoint = step
            if step == kill_at:
                break
            if step == 6:
                recorder.keep()
        else:
            recorder.close()
            return
        recorder.flush()
        (path / "snapshots" / ".step-00000099.nc.0a1b2c3d.tmp").write_bytes(b"half")
        with open(path / "metrics.jsonl", "ab") as file:
            file.write(b'{"step": 99, "lo')
        del recorder
        start, kill_at = checkpoint + 1, None
        fill(model, checkpoint)
        recorder = Recorder.resume(model, path, checkpoint)


@pytest.mark.parametrize("kill_at", range(12))
def test_a_resumed_run_has_the_files_of_one_never_killed(kill_at, tmp_path):
    record(tmp_path / "straight", until=12)
    record(tmp_path / "killed", until=12, kill_at=kill_at)
    assert open_run(tmp_path / "straight").steps.tolist() == [0, 3, 4, 6, 9, 12]
    assert files(tmp_path / "killed") == files(tmp_path / "straight")


@pytest.mark.parametrize("status", ["running", "finished", "diverged", "interrupted"])
def test_resuming_takes_up_what_was_interrupted_and_no_more(status, tmp_path):
    recorder = Recorder(linear(), tmp_path / "run")
    if status == "running":
        recorder.flush()
    else:
        recorder.close(status)
    del recorder
    resumed = Recorder.resume(linear(), tmp_path / "run", 0)
    ended = status in ("finished", "diverged")
    assert open_run(tmp_path / "run").config["status"] == (status if ended else "running")
    resumed.close()
    assert open_run(tmp_path / "run").config["status"] == (status if ended else "finished")


def test_one_recorder_at_a_time_and_none_after_a_kill(tmp_path):
    script = """
        import os, signal, sys, torch
        from wtdiag.probes.errors import InputError
        from wtdiag.trainers.layers.convert import transport_free
        from wtdiag.trainers.record.recorder import Recorder
        model = transport_free(torch.nn.Linear(3, 3), "kp")
        try:
            recorder = Recorder.resume(model, sys.argv[1], 0)
        except InputError as error:
            print(error)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    """
    recorder = Recorder(linear(), tmp_path / "run")
    recorder.snapshot(0, loss=1.0)
    recorder.flush()
    before = files(tmp_path / "run")
    assert "run: is being recorded by another process" in run_python(script, tmp_path / "run").stdout
    with pytest.raises(InputError, match="run: is being recorded by another process"):
        Recorder(linear(), tmp_path / "run", force=True)
    assert files(tmp_path / "run") == before
    recorder.close("interrupted")
    assert run_python(script, tmp_path / "run").returncode == -signal.SIGKILL
    Recorder.resume(linear(), tmp_path / "run", 0).close()


def test_a_run_that_fails_is_noted_as_interrupted_where_there_is_room(record_limit, tmp_path):
    recorder = Recorder(linear(200), tmp_path / "run")
    record_limit(100_000)
    recorder.snapshot(0)
    with pytest.raises(InputError, match=r"step-00000000\.nc: cannot be written"):
        recorder.close("interrupted")
    assert open_run(tmp_path / "run").config["status"] == "interrupted"


def test_resuming_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        Recorder.resume(linear(), tmp_path, 0)


def test_a_program_that_ends_without_close_loses_nothing(tmp_path):
    script = """
        import sys, torch
        from wtdiag.trainers.layers.convert import transport_free
        from wtdiag.trainers.record.recorder import Recorder
        model = transport_free(torch.nn.Linear(500, 500), "kp")
        recorder = Recorder(model, sys.argv[1])
        for step in range(5):
            recorder.snapshot(step)
    """
    done = run_python(script, tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert open_run(tmp_path / "run").layer("model").sizes["step"] == 5


KILLED = """
    import os, signal, sys, time, torch
    from wtdiag.trainers.layers.convert import transport_free
    from wtdiag.trainers.record.recorder import Recorder

    torch.set_num_threads(1)
    for trial in range(6):
        child = os.fork()
        if child == 0:
            model = transport_free(torch.nn.Linear(600, 600), "kp")
            recorder = Recorder(model, f"{sys.argv[1]}/{trial}")
            for step in range(10_000):
                with torch.no_grad():
                    for tensor in model.state_dict().values():
                        tensor.fill_(step)
                recorder.snapshot(step, loss=step)
        while not os.path.exists(f"{sys.argv[1]}/{trial}/metrics.jsonl"):
            time.sleep(0.001)
        time.sleep(0.1 + 0.037 * trial)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_killed_while_writing_every_snapshot_there_is_whole(tmp_path):
    done = run_python(KILLED, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    torn = snapshots = 0
    for trial in range(6):
        run = open_run(tmp_path / str(trial))
        torn += len(list(run.path.glob("snapshots/.*.tmp")))
        snapshots += len(run.steps)
        assert run.steps.tolist() == list(range(len(run.steps)))
        for step in run.steps:
            layer = run.snapshot(step)["model"]
            for array in (layer["forward"], layer["feedback"], run.state(step)["bias"]):
                np.testing.assert_array_equal(array, step)
        # At most two copies were on their way when the process was killed, and one being asked for.
        assert 0 <= len(run.metrics) - len(run.steps) <= 3
        Recorder.resume(linear(600), run.path, 1).close()
        assert not list(run.path.glob("**/.*.tmp"))
        assert run.steps.tolist() == [step for step in (0, 1) if snapshot_path(run.path, step).exists()]
    assert snapshots > 8
    assert torn > 0


def test_the_disk_itself_is_full(tmp_path):
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system can only be mounted by root")
    try:
        recorder = Recorder(linear(200), mount / "run")

        def loop():
            for step in range(100):
                recorder.snapshot(step, loss=1.0)

        for call in (loop, recorder.close):
            with pytest.raises(InputError, match=r"snapshots/step-\d+\.nc: cannot be written \(.+\)$") as caught:
                call()
            assert "\n" not in str(caught.value)
        run = open_run(mount / "run")
        assert run.layer("model").sizes["step"] == len(run.steps) >= 1
        assert not list((mount / "run").glob("**/.*.tmp"))
    finally:
        subprocess.run(["umount", str(mount)], check=True)
