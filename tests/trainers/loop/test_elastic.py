"""A run on several devices is started by one command, and a lost process is begun anew or named in one line."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch.distributed.launcher.api
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

import wtdiag.cli
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.elastic import devices_of, is_of, launch
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.processes import is_loss
from wtdiag.trainers.record import checkpoint

KILLED, ENDED = -signal.SIGKILL, -signal.SIGTERM


def workers():
    """The processes that multiprocessing has started from this one, by their number."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/cmdline") as command:
                if int(stat.read().rpartition(")")[2].split()[1]) == os.getpid() and "spawn_main" in command.read():
                    found.append(int(name))
        except OSError:  # it has ended
            continue
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_a_run_whose_process_is_killed_goes_on_by_itself(tmp_path, capfd):
    settings = {"rule": "fa", "epochs": 12.0, "precision": "float64", "batch_norm": False, "device": "cpu", "width": 8}
    killed = []

    def kill():
        while not killed and time.monotonic() < end:
            time.sleep(0.05)
            metrics = tmp_path / "two" / "metrics.jsonl"
            if metrics.exists() and metrics.stat().st_size and (several := workers()):
                os.kill(several[-1], signal.SIGKILL)
                killed.append(several[-1])

    end = time.monotonic() + 120
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    words = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items() if name != "batch_norm"]
    with pytest.raises(SystemExit) as ended:
        wtdiag.cli.main(
            ["train", *words, "--no-batch-norm", "--devices=2", "--max-restarts=1", f"--out={tmp_path / 'two'}"]
        )
    killer.join()
    printed, complained = capfd.readouterr()
    assert ended.value.code == 0, complained
    assert killed
    assert "finished" in printed
    assert complained.splitlines().count("fa carries the error of all weights") == 2
    assert "wtdiag: a process was lost; restart 1 goes on from the newest checkpoint" in complained
    assert "Traceback" not in complained
    for _ in (alone := Training(Settings(**settings), tmp_path / "one")):
        pass
    two = checkpoint.load(tmp_path / "two")["model"]
    for key, value in alone.model.state_dict().items():
        assert (value - two[key]).abs().max() < 1e-10
    assert open_run(tmp_path / "two").metrics.dropna(subset="loss").step.tolist() == list(range(1, alone.total + 1))


@pytest.mark.parametrize(("codes", "expected"), [
    ({0: ENDED, 1: KILLED}, "process 1 of 2 was ended by SIGKILL, and the others were ended; the run goes on with"),
    ({0: 3, 1: KILLED}, "process 1 of 2 was ended by SIGKILL"),
    ({0: 1, 1: ENDED}, "process 0 of 2 ended with exit code 1"),
    ({0: 3, 1: ENDED}, "process 0 of 2 was lost"),
    ({0: 2, 1: 3}, 2),
    (None, "devices: 2 processes cannot be started (no port)"),
    ({}, 2),
])  # fmt: skip
def test_the_end_of_the_processes_is_told_in_one_line(monkeypatch, codes, expected):
    def launched(config, work):
        def fail(*arguments):
            if codes is None:
                raise RuntimeError("no port\nat all")
            if not codes:
                return {0: 2, 1: 2}
            raise ChildFailedError("work", {rank: SimpleNamespace(exitcode=code, timestamp=0, message="", rank=rank)
                                            for rank, code in codes.items()})  # fmt: skip

        return fail

    monkeypatch.setattr(torch.distributed.launcher.api, "elastic_launch", launched)
    monkeypatch.setattr(ChildFailedError, "format_msg", lambda self: "")
    if isinstance(expected, int):
        assert launch(print, devices=2, max_restarts=0) == expected
    else:
        with pytest.raises(InputError) as error:
            launch(print, devices=2, max_restarts=0)
        assert str(error.value).startswith(expected)
        assert "\n" not in str(error.value)


ORPHAN = """
import multiprocessing, time

def child():
    from wtdiag.trainers.loop.processes import end_with_parent
    end_with_parent()
    print("ready", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    with subprocess.Popen([sys.executable, tmp_path / "orphan.py"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        assert select.select([parent.stdout], [], [], 30)[0], "the child still holds its end"
        assert parent.stdout.read() == b""


def test_runs_of_one_command_have_one_number_of_devices(tmp_path):
    with pytest.raises(InputError, match=r"devices: the runs of one command need one number, got \[1, 2\]"):
        devices_of({tmp_path / "a": Settings(), tmp_path / "b": Settings(devices=2)})


def test_begun_anew_a_run_is_resumed_only_if_it_is_the_same(tmp_path):
    settings = Settings(epochs=0, width=4, snapshots=2)
    assert is_of(tmp_path / "run", settings)
    for _ in Training(settings, tmp_path / "run"):
        pass
    assert is_of(tmp_path / "run", settings)
    assert not is_of(tmp_path / "run", Settings(epochs=0, width=5, snapshots=2))
    assert not is_of(tmp_path, settings)


def test_an_error_that_tells_of_a_lost_process_is_known():
    assert is_loss(RuntimeError("[third_party/gloo/pair.cc:538] Connection closed by peer [127.0.0.1]:61283"))
    assert not is_loss(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(("environment", "words", "message"), [
    ({}, ("--devices", 99, "--batch-size", 512), "devices: 99 are asked for, but there "),
    ({}, ("--max-restarts", 2), "max_restarts: only a run on several devices has them, got 2"),
    ({"RANK": "0", "WORLD_SIZE": "2"}, ("--devices", 3), "devices: 3 are asked for, but the launcher has started 2"),
    ({"RANK": "zero", "WORLD_SIZE": "2"}, (), "RANK: expected a whole number in the environment, got 'zero'"),
])  # fmt: skip
def test_bad_input_ends_in_one_line(monkeypatch, capsys, tmp_path, environment, words, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        wtdiag.cli.main(["train", "--device", "cpu", "--out", str(tmp_path / "x"), *map(str, words)])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith(f"wtdiag: {message}")
    assert not (tmp_path / "x").exists()
