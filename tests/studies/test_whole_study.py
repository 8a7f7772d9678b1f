"""A whole study, as a user calls it: killed, gone on with, told apart from others, reported."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import wtdiag
from wtdiag.diagnostics.claims import read_claims
from wtdiag.diagnostics.comparison.results import read_results
from wtdiag.probes.records.schema import CONFIG, read_json

WTDIAG = Path(sys.executable).with_name("wtdiag")
STUDY = """
# Asks: nothing
title = "Small <b>"
probes = ["weight_angle"]
claims = ["kp-over-fa"]
[settings]
epochs = 1
depth = 2
width = 8
snapshots = 2
batch_size = 256
[tune]
search.lr = { log = [0.02, 0.2] }
trials = 2
[[grid]]
factors.rule = ["bp", "fa", "kp"]
factors.seed = [0, 1]
[[sweep]]
name = "rates"
rules = ["sa"]
trials = 3
sampler = "random"
search.lr = { log = [0.02, 0.2] }
search.decay = { log = [0.1, 1] }
map = ["lr", "decay"]
[[transfer]]
name = "wider"
sweep = "rates"
top = 1
seeds = [0]
to.wide = { width = 16 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.toml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def done(folder):
    """Return the folder of the study, gone through without a stop."""
    assert call(folder, "done") == 0
    return folder / "done"


def call(folder, out, *more):
    with pytest.raises(SystemExit) as end:
        wtdiag.main(["study", str(folder / "small.toml"), "--out", str(folder / out), "--jobs", "2", *more])
    return end.value.code or 0


def statuses(folder):
    return {str(path.parent.relative_to(folder)): read_json(path)["status"] for path in sorted(folder.rglob(CONFIG))}


def results(folder):
    return {str(path.relative_to(folder)): read_results(path) for path in sorted(folder.rglob("results.nc"))}


@pytest.mark.slow
def test_a_study_leaves_results_claims_and_a_report(done):
    found = results(done)
    assert set(found) == {
        "results.nc",
        "tuning/all/results.nc",
        "sweeps/rates/results.nc",
        "transfers/wider/results.nc",
    }
    assert dict(found["results.nc"].sizes) == {"rule": 3, "seed": 2, "example": 360}
    assert (found["results.nc"].status == "finished").all()
    (claim,) = read_claims(done / "claims.json")
    assert (claim.name, claim.verdict, claim.n) == ("kp-over-fa", "undecided at this scale", 2)
    page = (done / "study.html").read_text()
    assert "Small &lt;b&gt;" in page
    assert "<b>" not in page
    assert (done / "study.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_cells_train_with_what_was_tuned_for_their_method(done):
    tuning, grid = read_results(done / "tuning/all/results.nc"), read_results(done / "results.nc")
    for rule in ("bp", "fa", "kp"):
        trials = tuning.sel(rule=rule)
        best = float(trials.lr[int(trials.validation_accuracy.argmax("trial"))])
        assert (grid.tuned_lr.sel(rule=rule) == best).all()
        assert read_json(done / "cells" / f"{rule},seed=1" / CONFIG)["settings"]["lr"] == best


@pytest.mark.slow
def test_no_search_has_seen_the_test_set(done):
    trials, cells = ([path.read_text() for path in done.glob(f"**/{folder}/*/metrics.jsonl")]
                     for folder in ("trials", "cells"))  # fmt: skip
    assert len(trials) == 3 * 2 + 2 * 3  # of the tuning of three methods, and of the sweep's and its reference
    assert len(cells) == 3 * 2 + 2 * 2  # of three methods with two seeds, and of two on two architectures
    assert all("validation_accuracy" in logged and "test_accuracy" not in logged for logged in trials)
    assert all("test_accuracy" in logged for logged in cells)


@pytest.mark.slow
def test_called_again_it_trains_nothing(folder, done):
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.name in (CONFIG, "metrics.jsonl")}
    assert len(before) == 2 * len(statuses(done)) > 0
    assert call(folder, "done") == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_to_the_same_results(folder, done):
    out = folder / "killed"
    total = len(statuses(done))
    alive = []
    for share in (0.1, 0.5, 0.9):  # while it tunes and searches, between, and in the grid
        begin = [str(WTDIAG), "study", str(folder / "small.toml"), "--out", str(out), "--jobs", "2"]
        process = subprocess.Popen(begin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        end = time.monotonic() + 600
        while process.poll() is None and len(statuses(out)) < share * total:
            assert time.monotonic() < end
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        alive.append(process.wait() == -signal.SIGKILL)
        finished = {name for name, status in statuses(out).items() if status == "finished"}
        wait_until_free(out)
        assert {name for name, status in statuses(out).items() if status == "finished"} >= finished
    assert alive[:2] == [True, True], "over before it was killed"
    assert call(folder, "killed") == 0
    assert statuses(out) == statuses(done)
    assert results(out).keys() == results(done).keys()
    for name, one in results(done).items():
        other = results(out)[name]
        for variable in (
            "test_accuracy",
            "test_loss",
            "validation_accuracy",
            "status",
            "weight_angle",
            "tuned_lr",
            "lr",
        ):
            assert (variable in one) == (variable in other)
            if variable in one:
                assert one[variable].equals(other[variable]), (name, variable)


def wait_until_free(out):
    """Wait until the workers of a killed study have ended: they hold the folders of their runs."""
    end = time.monotonic() + 300
    while any(str(out) in line for line in processes()):
        assert time.monotonic() < end
        time.sleep(0.05)


def processes():
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            yield os.readlink(path)
        except OSError:
            continue


@pytest.mark.slow
def test_a_changed_setting_is_refused_and_nothing_is_lost(folder, done, capsys):
    shutil.copytree(done, folder / "changed")
    before = statuses(folder / "changed")
    (folder / "small.toml").write_text(STUDY.replace("epochs = 1", "epochs = 2"))
    try:
        assert call(folder, "changed") == 2
    finally:
        (folder / "small.toml").write_text(STUDY)
    assert "epochs" in capsys.readouterr().err
    assert statuses(folder / "changed") == before


@pytest.mark.slow
def test_more_seeds_are_added_to_what_is_there(folder, done):
    shutil.copytree(done, folder / "more")
    (folder / "small.toml").write_text(STUDY.replace("seed = [0, 1]", "seed = [0, 1, 2]"))
    try:
        assert call(folder, "more", "--format", "html") == 0
    finally:
        (folder / "small.toml").write_text(STUDY)
    more = read_results(folder / "more" / "results.nc")
    assert more.sizes["seed"] == 3
    assert more.test_accuracy.sel(seed=[0, 1]).equals(read_results(done / "results.nc").test_accuracy)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.toml"], "neither a file nor a study that comes with wtdiag"),
        (["small/two-routes", "--jobs", "0"], "jobs"),
        (["{folder}/small.toml", "--out", "{folder}/taken"], "holds something other than a study"),
        (["{folder}/small.toml", "--out", "{folder}/nowhere", "--device", "tpu"], "device"),
    ],
)
def test_bad_input_is_one_line(folder, words, message, capsys):
    (folder / "taken").mkdir(exist_ok=True)
    (folder / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as end:
        wtdiag.main(["study", *(word.format(folder=folder) for word in words)])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert error.count("\n") <= 2
    assert (folder / "taken" / "mine.txt").read_text() == "mine"


def test_the_studies_that_come_with_wtdiag_are_listed(capsys):
    with pytest.raises(SystemExit):
        wtdiag.main(["studies"])
    shown = capsys.readouterr().out
    assert "small/two-routes" in shown
    assert "Command: wtdiag study small/two-routes" in shown


@pytest.mark.slow
def test_study_json_tells_what_was_done(done):
    record = json.loads((done / "study.json").read_text())
    assert record["file"] == STUDY
    assert record["title"] == "Small <b>"
    assert record["wtdiag_version"]
