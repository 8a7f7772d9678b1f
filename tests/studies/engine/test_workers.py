"""Cells on workers of this machine: resumed, killed, interrupted, pruned, failed; never lost."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import CONFIG, read_json
from wtdiag.studies.engine.cell import Cell, is_done, outcome_of
from wtdiag.studies.engine.workers import Workers
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.fit import Training

TINY = {"epochs": 1.0, "depth": 2, "width": 8, "snapshots": 2, "batch_size": 256}
LONG = TINY | {"epochs": 100000.0}


class Listed:
    """A source of given cells that keeps what it hears."""

    def __init__(self, *cells, prune="", act=lambda cell: None):
        self.waiting, self.total = list(cells), len(cells)
        self.prune, self.act = prune, act
        self.outcomes, self.states = {}, []

    def next(self):
        return self.waiting.pop(0) if self.waiting else None

    def reported(self, cell, state):
        self.states.append(state)
        self.act(cell)
        return self.prune

    def ended(self, cell, outcome):
        assert cell.path.name not in self.outcomes
        self.outcomes[cell.path.name] = outcome


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as workers:
        yield workers


def test_cells_are_trained_and_told_of(workers, tmp_path):
    cells = [Cell(tmp_path / rule, Settings(rule=rule, **TINY), ("weight_angle",)) for rule in ("bp", "fa", "kp")]
    source = Listed(*cells)
    workers.run(source)
    assert source.outcomes == {cell.path.name: outcome_of(cell.path) for cell in cells}
    assert {outcome.status for outcome in source.outcomes.values()} == {"finished"}
    assert all(outcome.accuracy > 0.1 and outcome.seconds > 0 for outcome in source.outcomes.values())
    assert all((cell.path / "analysis.nc").exists() and is_done(cell) for cell in cells)


def test_what_is_done_is_not_trained_again(workers, tmp_path):
    cell = Cell(tmp_path / "fa", Settings(rule="fa", **TINY))
    workers.run(Listed(cell))
    before = {path: path.stat().st_mtime_ns for path in cell.path.rglob("*")}
    again = Listed(cell)
    workers.run(again)
    assert again.outcomes["fa"].status == "finished"
    assert {path: path.stat().st_mtime_ns for path in cell.path.rglob("*")} == before


def test_what_is_trained_but_not_measured_is_measured(workers, tmp_path):
    settings = Settings(rule="fa", **TINY)
    workers.run(Listed(Cell(tmp_path / "fa", settings)))
    cell = Cell(tmp_path / "fa", settings, ("weight_angle",))
    assert not is_done(cell)
    workers.run(Listed(cell))
    assert is_done(cell)


def test_a_begun_run_is_resumed_to_the_same_weights(workers, tmp_path):
    settings = Settings(rule="kp", **TINY | {"epochs": 4.0})
    steps = iter(Training(settings, tmp_path / "begun"))
    for _ in range(7):
        next(steps)
    steps.close()
    assert outcome_of(tmp_path / "begun").status == "interrupted"
    source = Listed(Cell(tmp_path / "begun", settings), Cell(tmp_path / "whole", settings))
    workers.run(source)
    begun, whole = source.outcomes["begun"], source.outcomes["whole"]
    assert (begun.accuracy, begun.loss, begun.step) == (whole.accuracy, whole.loss, whole.step)


def test_a_diverged_training_answers_at_chance(workers, tmp_path):
    source = Listed(Cell(tmp_path / "wild", Settings(rule="bp", lr=1e30, batch_norm=False, **TINY)))
    workers.run(source)
    outcome = source.outcomes["wild"]
    assert (outcome.status, outcome.accuracy) == ("diverged", 0.1)
    assert "not finite at step" in outcome.reason


def test_a_watched_training_stops_when_its_source_says_so(workers, tmp_path):
    settings = Settings(rule="sa", **TINY)
    source = Listed(Cell(tmp_path / "sa", settings, watch=True), prune="S is 3")
    workers.run(source)
    outcome = source.outcomes["sa"]
    assert (outcome.status, outcome.reason, outcome.step) == ("pruned", "S is 3", 0)
    assert math.isnan(outcome.accuracy)
    assert read_json(tmp_path / "sa" / CONFIG)["pruned"] == {"step": 0, "why": "S is 3"}
    assert is_done(Cell(tmp_path / "sa", settings, ("weight_angle",)))


def test_watch_points_lie_at_doubling_epochs(workers, tmp_path):
    source = Listed(Cell(tmp_path / "sa", Settings(rule="sa", **TINY | {"epochs": 5.0}), watch=True))
    workers.run(source)
    assert [state.step for state in source.states] == [0, 6, 12, 24]
    assert all(state.step_size_number == pytest.approx(0.1) for state in source.states)


def test_bad_settings_fail_alone(workers, tmp_path):
    bad = Cell(tmp_path / "bad", Settings(model="resnet8", data="mnist", data_dir=str(tmp_path / "none")))
    source = Listed(bad, Cell(tmp_path / "good", Settings(rule="fa", **TINY)))
    workers.run(source)
    assert source.outcomes["bad"].status == "failed"
    assert "none" in source.outcomes["bad"].reason
    assert source.outcomes["good"].status == "finished"


def test_a_run_of_other_settings_is_not_touched(workers, tmp_path):
    workers.run(Listed(Cell(tmp_path / "fa", Settings(rule="fa", **TINY))))
    with pytest.raises(InputError, match="was made with seed=0, not 1"):
        workers.run(Listed(Cell(tmp_path / "fa", Settings(rule="fa", seed=1, **TINY))))


@pytest.mark.slow
def test_a_cell_is_trained_again_when_its_worker_dies_and_fails_when_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("wtdiag.studies.engine.local_cluster.RETRIES", 1)
    asked = []

    def kill(cell):
        asked.append(cell.path.name)
        if asked != ["once", "once"]:
            os.kill(*workers.link._client.run(os.getpid).values(), signal.SIGKILL)

    settings = Settings(rule="sa", **TINY)
    source = Listed(*(Cell(tmp_path / name, settings, watch=True) for name in ("once", "doomed")), act=kill)
    with Workers(1) as workers:
        workers.run(source)
    assert source.outcomes["once"] == outcome_of(tmp_path / "once")
    assert source.outcomes["once"].status == "finished"
    assert source.outcomes["doomed"].status == "failed"
    assert "its worker died" in source.outcomes["doomed"].reason
    assert outcome_of(tmp_path / "doomed").status == "interrupted"  # the next start takes it up


SCRIPT = """
import signal
import sys
sys.path[:0] = [{root!r}, {here!r}]
from pathlib import Path
from test_workers import LONG, Listed
from wtdiag.studies.engine.cell import Cell
from wtdiag.studies.engine.workers import Workers
from wtdiag.trainers.config.settings import Settings

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # begun in the background it would be deaf to it
    source = Listed(*(Cell(Path({out!r}, rule), Settings(rule=rule, **LONG)) for rule in ("bp", "fa")))
    try:
        with Workers(2) as workers:
            workers.run(source)
    except KeyboardInterrupt:
        print([source.outcomes[name].status for name in sorted(source.outcomes)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_when_the_study_ends_its_workers_end_and_leave_runs_that_go_on(tmp_path, how):
    script = tmp_path / "script.py"
    here, root = Path(__file__).parent, Path(__file__).parents[3]
    script.write_text(textwrap.dedent(SCRIPT).format(root=str(root), here=str(here), out=str(tmp_path)))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    metrics = [tmp_path / rule / "metrics.jsonl" for rule in ("bp", "fa")]
    wait_for(lambda: all(path.exists() and path.stat().st_size for path in metrics))
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
        assert process.communicate(timeout=300)[0] == "['interrupted', 'interrupted']\n"
    else:
        process.kill()
        process.communicate(timeout=300)
    wait_for(lambda: is_still(metrics))
    for rule in ("bp", "fa"):
        assert outcome_of(tmp_path / rule).status == "interrupted"
        Training(Settings(rule=rule, **LONG), tmp_path / rule, resume=True)  # it could go on


def is_still(files):
    sizes = [path.stat().st_size for path in files]
    time.sleep(0.5)
    return sizes == [path.stat().st_size for path in files]


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_jobs_are_checked():
    with pytest.raises(InputError, match="jobs: expected a positive number of processes, got 0"):
        Workers(0)
