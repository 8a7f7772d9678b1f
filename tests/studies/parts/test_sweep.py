"""Sweeps: what is searched, what is kept, what is shared between processes, and what a kill costs."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import xarray as xr

from wtdiag.diagnostics.comparison.results import check_results, read_results
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import read_json, write_json
from wtdiag.studies.engine.cell import Cell, CellState, Outcome
from wtdiag.studies.engine.storage import open_storage, shown_url
from wtdiag.studies.file.space import Range, parse_search
from wtdiag.studies.parts.dataset import write
from wtdiag.studies.parts.finished_sweep import read_finished_sweep
from wtdiag.studies.parts.sweep import SWEEP, Sweep
from wtdiag.studies.parts.trials import importances
from wtdiag.studies.predict.pruner import StepSizePruner

SPACE = {"lr": Range(0.005, 0.5, log=True), "amp": Range(0.001, 1.0, log=True), "null": Range(0.0, 1.0)}
METHODS = {"ia": {"rule": "ia"}, "wm": {"rule": "wm-reg"}}
Train = Callable[[Cell], Outcome]


@pytest.fixture(autouse=True)
def _no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wtdiag.studies.engine.storage._SYNCHRONOUS", "OFF")  # nobody pulls the plug here


def make(out: Path, **given: Any) -> Sweep:
    return Sweep(
        out, **{"methods": METHODS, "settings": {"epochs": 1}, "space": SPACE, "trials": 6, "sampler": "random"} | given
    )


def outcome(cell: Cell) -> Outcome:
    """What a training might come to: it diverges where amp is large, and there is a best learning rate."""
    settings = cell.settings
    if float(settings.coefficients.get("amp", 0)) > 0.3:
        return Outcome("diverged", "loss not finite at step 3", 3, 0.1, math.log(10), 0.5)
    return Outcome("finished", "", 20, 0.9 - 0.1 * abs(math.log10((settings.lr or 0.05) / 0.05)), 0.2, 1.5)


def drain(sweep: Sweep, train: Train = outcome, step_size_number: float = 0.5) -> list[Cell]:
    """Do what `studies.engine.workers.Workers` does with one job."""
    cells = []
    for source in sweep.sources():
        while (cell := source.next()) is not None:
            cells.append(cell)
            state = CellState(0, 20, math.nan, math.nan, math.nan, step_size_number, math.nan)
            reason = source.reported(cell, state) if cell.watch else ""
            source.ended(cell, Outcome("pruned", reason) if reason else train(cell))
    return cells


def parameters(cells: list[Cell]) -> list[tuple[float, Any]]:
    return [(cell.settings.lr, cell.settings.coefficients) for cell in cells]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_method_has_the_same_budget_and_the_results_say_all(tmp_path: Path, sampler: str) -> None:
    sweep = make(tmp_path / "s", sampler=sampler, trials=6)
    cells = drain(sweep)
    budget = {"bp": 6, "ia": 6, "wm": 6}
    assert Counter(cell.path.name.rpartition("-")[0] for cell in cells) == budget
    assert {cell.settings.holdout for cell in cells} == {0.2}
    assert all(cell.path.parent == tmp_path / "s" / "trials" and cell.watch for cell in cells)
    results = sweep.results()
    check_results(results)
    assert results.attrs["kind"] == "sweep"
    assert json.loads(results.attrs["space"])["lr"] == {"low": 0.005, "high": 0.5, "log": True}
    for cell in cells:
        rule, _, number = cell.path.name.rpartition("-")
        found, expected = results.sel(rule=rule, trial=int(number)), outcome(cell)
        assert found.status.item() == expected.status
        assert found.reason.item() == expected.reason
        assert found.validation_accuracy.item() == expected.accuracy
        assert (found.steps.item(), found.seconds.item()) == (expected.step, expected.seconds)
        assert found.step_size_number.item() == 0.5
        assert found.lr.item() == cell.settings.lr
        amp = cell.settings.coefficients.get("amp", math.nan)
        np.testing.assert_equal(found.amp.item(), amp)
    assert results.amp.sel(rule="bp").isnull().all()
    assert results.null.sel(rule="wm").isnull().all()
    best = sweep.best("ia", 2)
    ranked = results.sel(rule="ia").where(results.status.sel(rule="ia") == "finished", drop=True)
    assert best[0]["lr"] == ranked.lr.values[ranked.validation_accuracy.values.argmax()]
    assert len(best) == 2
    assert set(best[0]) == set(SPACE)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_gives_the_same_trials_and_another_others(tmp_path: Path, sampler: str) -> None:
    given: dict[str, Any] = {"sampler": sampler, "trials": 12, "methods": {}, "space": {"lr": SPACE["lr"]}}
    first, second, other = (
        [cell.settings.lr for cell in drain(make(tmp_path / name, **given, seed=seed))]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second
    assert first != other
    assert len(set(first)) == 12  # no trial repeats another


def test_tpe_learns_from_what_it_has_seen(tmp_path: Path) -> None:
    space = {"lr": Range(1e-5, 0.5, log=True)}
    distance = {}
    for sampler in ("random", "tpe"):
        cells = drain(make(tmp_path / sampler, sampler=sampler, trials=20, space=space, methods={}))
        distance[sampler] = [abs(math.log10(cell.settings.lr / 0.05)) for cell in cells]
    assert distance["tpe"][:10] == distance["random"][:10]
    assert np.mean(distance["tpe"][10:]) < 0.5 * np.mean(distance["random"][10:])


def test_a_rule_without_any_of_the_parameters_is_trained_once(tmp_path: Path) -> None:
    cells = drain(make(tmp_path / "s", space={"null": SPACE["null"]}, methods={"ia": {"rule": "ia"}}))
    assert Counter(cell.settings.rule for cell in cells) == {"bp": 1, "ia": 6}


def test_unstable_trials_are_pruned_and_unknown_ones_are_not(tmp_path: Path) -> None:
    sweep = make(tmp_path / "s", trials=2)
    drain(sweep, step_size_number=1.2)
    results = sweep.results()
    assert set(results.status.values.ravel()) == {"pruned"}
    assert results.validation_accuracy.isnull().all()
    assert (results.step_size_number == 1.2).all()
    assert results.reason.values[0, 0] == "step-size number 1.2 is above 1: unstable"
    with pytest.raises(InputError, match="no trial of ia finished"):
        sweep.best("ia")
    unknown = make(tmp_path / "t", trials=2)
    drain(unknown, step_size_number=math.nan)
    assert "pruned" not in unknown.results().status.values
    assert not any(cell.watch for cell in drain(make(tmp_path / "u", trials=1, prune=False)))


@pytest.mark.parametrize(
    ("step_size_number", "log_gain", "pruned"),
    [(1.01, 0.0, True), (1.0, 7.0, False), (0.5, 7.1, True), (math.inf, math.nan, True), (math.nan, math.inf, True),
     (math.nan, math.nan, False), (None, None, False), ("2", "9", False)],
)  # fmt: skip
def test_the_pruner_alone(step_size_number: object, log_gain: object, pruned: bool) -> None:
    trial = optuna.create_study(pruner=StepSizePruner()).ask()
    assert not trial.should_prune()
    trial.set_user_attr("step_size_number", step_size_number)
    trial.set_user_attr("log_gain", log_gain)
    assert trial.should_prune() == pruned


def test_what_failed_is_kept_with_its_reason(tmp_path: Path) -> None:
    # Nesterov's momentum needs momentum: this pair of choices cannot be trained.
    space = {"momentum": Range(choices=(0.9, 0)), "nesterov": Range(choices=(False, True))}
    sweep = make(tmp_path / "s", space=space, sampler="grid", trials=4, methods={})
    cells = drain(
        sweep, lambda cell: Outcome("failed", "its process was killed") if cell.path.name == "bp-0" else outcome(cell)
    )
    results = sweep.results()
    assert len(cells) == 3
    assert results.status.values.ravel().tolist() == ["failed", "finished", "finished", "failed"]
    assert results.reason[0, 0] == "its process was killed"
    assert "nesterov: needs sgd with momentum" in results.reason.item(0, 3)
    assert results.validation_accuracy[0, [0, 3]].isnull().all()


@pytest.mark.parametrize("shared", [False, True])
def test_what_failed_is_tried_again_by_the_next_start(tmp_path: Path, shared: bool) -> None:
    given = {"storage": f"sqlite:///{tmp_path / 'shared.db'}"} if shared else {}

    def train(cell: Cell) -> Outcome:
        full = cell.path.name in ("ia-1", "wm-3")
        return Outcome("failed", "OSError: No space left on device") if full else outcome(cell)

    sweep = make(tmp_path / "s", **given)
    first = drain(sweep, train)
    assert len({cell.path for cell in first}) == len(first) == 18  # each is tried once
    results = sweep.results()
    for rule, trial in (("ia", 1), ("wm", 3)):
        assert results.status.sel(rule=rule, trial=trial) == "failed"
        assert results.reason.sel(rule=rule, trial=trial) == "OSError: No space left on device"
    assert (results.status == "failed").sum() == 2
    sweep.close()
    if shared:  # another folder leaves them to their own
        assert drain(make(tmp_path / "t", **given)) == []
    again = make(tmp_path / "s", **given)
    assert [source.total for source in again.sources()] == [0, 1, 1]
    second = drain(again)
    assert second == [cell for cell in first if cell.path.name in ("ia-1", "wm-3")]  # with the same parameters
    again.close()
    undisturbed = make(tmp_path / "u")
    drain(undisturbed)
    for name in ("status", "reason", "validation_accuracy", "lr"):
        xr.testing.assert_equal(again.results()[name], undisturbed.results()[name])
    assert drain(make(tmp_path / "s", **given)) == []


def test_a_second_start_has_nothing_to_do_and_more_trials_go_on(tmp_path: Path) -> None:
    out = tmp_path / "s"
    sweep = make(out)
    first = drain(sweep)
    sweep.close()
    again = make(out)
    assert [source.total for source in again.sources()] == [0, 0, 0]
    assert drain(again) == []
    again.close()
    more = make(out, trials=8)
    assert [source.total for source in more.sources()] == [2, 2, 2]
    second = drain(more)
    assert Counter(cell.settings.rule for cell in second) == {"bp": 2, "ia": 2, "wm-reg": 2}
    assert not {cell.path for cell in first} & {cell.path for cell in second}
    more.close()
    fewer = make(out, trials=2)
    assert drain(fewer) == []
    assert fewer.results().sizes["trial"] == 8


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"settings": {"epochs": 2}}, "methods.bp.settings.epochs = 1, not 2"),
        ({"space": SPACE | {"lr": Range(0.005, 1.0, log=True)}}, "methods.bp.space.lr.high = 0.5, not 1.0"),
        ({"sampler": "tpe"}, "sampler = 'random', not 'tpe'"),
        ({"methods": {"ia": {"rule": "ia"}}}, "methods.wm"),
        ({"prune": False}, "prune = True, not False"),
        ({"seed": 3}, "seed = 0, not 3"),
        ({"storage": "sqlite:///other.db"}, "storage = None, not 'sqlite:///other.db'"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    drain(make(tmp_path / "s", trials=1))
    with pytest.raises(InputError, match=f"{says}.*; continue that one, or start another"):
        make(tmp_path / "s", trials=1, **change)


def test_where_it_runs_may_change(tmp_path: Path) -> None:
    drain(make(tmp_path / "s", trials=1))
    make(tmp_path / "s", trials=1, settings={"epochs": 1.0, "batch_size": 64, "device": "cpu", "data_dir": "/data"})


def test_a_sweep_made_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    drain(make(tmp_path / "s", trials=1))
    old = read_json(tmp_path / "s" / SWEEP)
    for method in old["methods"].values():
        del method["settings"]["accumulate"]
    write_json(tmp_path / "s" / SWEEP, old)
    make(tmp_path / "s", trials=1)
    with pytest.raises(InputError, match="accumulate = 1, not 2"):
        make(tmp_path / "s", trials=1, settings={"epochs": 1.0, "batch_size": 64, "accumulate": 2})


def test_another_sweep_in_the_same_storage_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    drain(make(tmp_path / "a", trials=1, storage=url))
    with pytest.raises(InputError, match=r"storage: .*shared.db: bp holds a sweep with settings.epochs = 1, not 2"):
        drain(make(tmp_path / "b", trials=1, storage=url, settings={"epochs": 2}))
    with pytest.raises(InputError, match="cannot be opened"):
        drain(make(tmp_path / "b", storage=f"sqlite:///{tmp_path / 'none' / 'x.db'}"))
    assert not (tmp_path / "b").exists()


def test_a_folder_of_something_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds something other than a sweep"):
        make(tmp_path)


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    first = make(tmp_path / "s")
    first.sources()
    with pytest.raises(
        InputError, match=r"another process works in .*; to share a search, give each process its own out"
    ):
        make(tmp_path / "s").sources()
    first.close()
    make(tmp_path / "s").sources()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sampler": "cma"}, "'cma' is not known"),
        ({"trials": 0}, "trials: expected a number from 1 to"),
        ({"space": {}}, "at least one parameter"),
        ({"settings": {"holdout": 0}}, "holdout: expected a share above 0"),
        ({"map": ("amp", "decay")}, "map: 'decay' is not known"),
        ({"map": ("amp", "amp")}, "map: expected two parameters"),
        ({"methods": {"a/b": {"rule": "ia"}}}, "labels that can name a folder"),
        ({"storage": "postgres"}, "storage: expected an Optuna URL"),
        ({"methods": {"wm": {"rule": "wm-reg"}, "sa": {"rule": "sa"}}, "map": ("amp", "self"),
          "space": parse_search(["amp=linear:0:1", "self=linear:0:1"])}, "no rule has both amp and self"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_anything_is_made(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        make(tmp_path / "s", **change)
    assert not (tmp_path / "s").exists()


def test_storages_that_cannot_be_opened(tmp_path: Path) -> None:
    assert shown_url("mysql://me:secret@host/x") == "mysql://me:***@host/x"
    (tmp_path / "text.db").write_text("this is no database, and long enough to be told from one " * 20)
    for url, says in (
        (f"sqlite:///{tmp_path / 'none' / 'x.db'}", "cannot be opened"),
        (f"sqlite:///{tmp_path / 'text.db'}", "cannot be opened"),
        ("mysql://me:secret@host/x", "driver"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            open_storage(url)
        assert "secret" not in str(caught.value)


WORKER = """
import sys, time
sys.path.insert(0, {tests!r})
from test_sweep import drain, make, outcome
from pathlib import Path

def train(cell):
    with open({log!r}, "a") as file:
        file.write(cell.path.name + " " + sys.argv[1] + "\\n")
    time.sleep(0.02)
    return outcome(cell)

drain(make(Path(sys.argv[1]), storage={url!r}, trials=8), train)
"""


def test_two_processes_share_one_search(tmp_path: Path) -> None:
    url, log = f"sqlite:///{tmp_path / 'shared.db'}", tmp_path / "log"
    script = WORKER.format(tests=str(Path(__file__).parent), log=str(log), url=url)
    command = [sys.executable, "-W", "error", "-c", script]
    workers = [
        subprocess.Popen([*command, str(tmp_path / name)], stderr=subprocess.PIPE, text=True) for name in ("a", "b")
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    trained = [line.split() for line in log.read_text().splitlines()]
    assert len({name for name, _ in trained}) == len(trained) == 24  # each once
    assert len({where for _, where in trained}) == 2  # and both had some
    for name in ("a", "b"):  # each sees what both did
        results = make(tmp_path / name, storage=url, trials=8).results()
        assert set(results.status.values.ravel()) <= {"finished", "diverged"}
        assert results.sizes["trial"] == 8
    single = make(tmp_path / "single", trials=8)
    drain(single)
    xr.testing.assert_equal(results.lr, single.results().lr)  # random trials are the same whoever begins them


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_sweep import drain, make, outcome
from pathlib import Path

def train(cell):
    if cell.path.name == "ia-2":
        cell.path.mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return outcome(cell)

drain(make(Path({out!r}), **{given!r}), train)
"""


@pytest.mark.parametrize("shared", [False, True])
def test_a_kill_costs_no_trial(tmp_path: Path, shared: bool) -> None:
    given = {"storage": f"sqlite:///{tmp_path / 'shared.db'}"} if shared else {}
    script = KILLED.format(tests=str(Path(__file__).parent), out=str(tmp_path / "s"), given=given)
    killed = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if shared:  # another machine leaves it alone
        elsewhere = [cell.path.name for cell in drain(make(tmp_path / "t", trials=4, **given))]
        assert elsewhere == ["ia-3", "wm-0", "wm-1", "wm-2", "wm-3"]
    sweep = make(tmp_path / "s", **given)
    status = sweep.results().status.sel(rule="ia").values.tolist()
    assert status[2] == "running"
    cells = drain(sweep)
    uninterrupted = drain(make(tmp_path / "u"))
    rest = [cell for cell in uninterrupted if not shared or cell.path.name not in elsewhere]
    assert [cell.path.name for cell in cells] == [cell.path.name for cell in rest][8:]
    assert parameters(cells) == parameters(rest)[8:]
    assert "running" not in sweep.results().status.values


def test_an_interrupted_trial_is_taken_up(tmp_path: Path) -> None:
    sweep = make(tmp_path / "s", methods={}, space={"lr": SPACE["lr"]})
    (source,) = sweep.sources()
    cell = source.next()
    assert cell is not None
    source.ended(cell, Outcome("interrupted", "stopped by the user", 5))
    assert sweep.results().status.values[0, 0] == "interrupted"
    again = source.next()
    assert again == cell
    source.ended(again, outcome(again))
    assert sweep.results().status.values[0, 0] == "finished"


@pytest.mark.parametrize("name", ["a?b", "a#b%20", "{x}", "重み"])
def test_the_database_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    given: dict[str, Any] = {"methods": {}, "space": {"lr": SPACE["lr"]}, "trials": 1}
    assert len(drain(make(tmp_path / name, **given))) == 1
    assert (tmp_path / name / "trials.db").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [name]


def begun_and_left(folder: Path, **given: Any) -> Cell:
    """Begin a trial, as a process does that is then killed."""
    sweep = make(folder, **given)
    (source,) = sweep.sources()
    cell = source.next()
    assert cell is not None
    sweep.close()
    return cell


@pytest.mark.parametrize("how", ["folder gone", "machine gone", "alive"])
def test_trials_that_nobody_will_end_are_taken_over(tmp_path: Path, how: str) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    given: dict[str, Any] = {"methods": {}, "space": {"lr": SPACE["lr"]}, "trials": 2, "storage": url}
    left = begun_and_left(tmp_path / "gone", **given)
    storage = open_storage(url)
    (trial,) = storage.get_all_trials(storage.get_study_id_from_name("bp"))
    if how == "folder gone":
        shutil.rmtree(tmp_path / "gone")
    else:
        storage.set_trial_user_attr(trial._trial_id, "where", "elsewhere:/runs/sweep/trials")
    if how == "machine gone":
        storage.set_trial_user_attr(trial._trial_id, "seen", trial.user_attrs["seen"] - 700)
    sweep = make(tmp_path / "here", **given)
    cells = drain(sweep)
    statuses = sweep.results().status.values[0].tolist()
    if how == "alive":
        assert [cell.path.name for cell in cells] == ["bp-1"]
        assert statuses == ["running", "finished"]
    else:
        assert {cell.path.name for cell in cells} == {"bp-0", "bp-1"}
        assert statuses == ["finished", "finished"]
        assert left.settings.lr in [cell.settings.lr for cell in cells]  # begun with the parameters that it had


def test_trials_in_flight_give_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wtdiag.studies.parts.search.HEARTBEAT", 0.02)
    sweep = make(tmp_path / "s", methods={}, space={"lr": SPACE["lr"]}, trials=1)
    (source,) = sweep.sources()
    cell = source.next()
    assert cell is not None
    first = source.all()[0].user_attrs["seen"]
    until = time.monotonic() + 30
    while source.all()[0].user_attrs["seen"] == first:
        assert time.monotonic() < until
        time.sleep(0.01)
    source.ended(cell, outcome(cell))


def trials(accuracy: Callable[[float, float], float], count: int) -> list[optuna.trial.FrozenTrial]:
    """Random trials over lr and amp, and a coefficient that does nothing."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(count):
        trial = study.ask()
        values = {name: each.suggest(trial, name) for name, each in SPACE.items()}
        study.tell(trial, accuracy(values["lr"], values["amp"]))
    return study.trials


def test_importance_finds_what_decides() -> None:
    best = lambda lr, amp: 0.9 - 0.1 * abs(math.log10(lr / 0.05))  # noqa: E731
    found = importances(trials(lambda lr, amp: 0.1 if amp > 0.3 else best(lr, amp), 30), SPACE)
    assert found["amp"] > 0.8  # for a sixth of its scale it makes runs diverge
    assert sum(found.values()) == pytest.approx(1)
    found = importances(trials(best, 30), SPACE)
    assert found["lr"] > 0.8
    assert found == importances(trials(best, 30), SPACE)  # no chance in it


@pytest.mark.parametrize("count", [0, 3, 8])
def test_importance_is_unknown_where_there_is_nothing_to_tell(count: int) -> None:
    accuracy = (lambda lr, amp: lr) if count < 4 else (lambda lr, amp: 0.1)
    assert importances(trials(accuracy, count), SPACE) == pytest.approx(dict.fromkeys(SPACE, math.nan), nan_ok=True)


def test_words_are_results_too(tmp_path: Path) -> None:
    space = {"optimizer": Range(choices=("sgd", "adam")), "inputs": Range(choices=("noise", "activations"))}
    sweep = make(tmp_path / "s", space=space, sampler="grid", trials=4, methods={"ia": {"rule": "ia"}})
    drain(sweep)
    results = sweep.results()
    check_results(results)
    assert results.optimizer.sel(rule="ia").values.tolist() == ["sgd", "sgd", "adam", "adam"]
    assert results.inputs.sel(rule="bp").values.tolist() == ["", "", "", ""]
    assert sweep.best("ia")[0]["inputs"] in ("noise", "activations")


def test_numbers_among_words_come_back_as_numbers(tmp_path: Path) -> None:
    space = {"self": Range(choices=(0.1, "linear:0.1:0.2")), "nesterov": Range(choices=(False, True))}
    given: dict[str, Any] = {"settings": {"epochs": 1, "momentum": 0.9}, "methods": {"sa": {"rule": "sa"}}}
    sweep = make(tmp_path / "s", space=space, sampler="grid", trials=4, **given)
    cells = drain(sweep)
    write(sweep.results(), sweep.out)
    results = read_results(sweep.out / "results.nc").sel(rule="sa")
    assert results.self.values.tolist() == ["0.1", "0.1", "linear:0.1:0.2", "linear:0.1:0.2"]
    assert results.nesterov.values.tolist() == [0, 1, 0, 1]
    tried = [
        {"self": cell.settings.coefficients["self"], "nesterov": cell.settings.nesterov}
        for cell in cells
        if cell.settings.rule == "sa"
    ]
    for finished in (read_finished_sweep(sweep.out), read_finished_sweep(sweep)):
        assert finished.best("sa", 4) == tried  # all came to the same accuracy
        assert {type(best["self"]) for best in finished.best("sa", 4)} == {float, str}
        assert all(type(best["nesterov"]) is bool for best in finished.best("sa", 4))


def test_the_predicted_map_is_of_the_middle_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wtdiag.studies.predict import boundary
    from wtdiag.trainers.config.settings import Settings

    monkeypatch.setattr("wtdiag.studies.parts.sweep.MAP_POINTS", 3)
    settings = {"width": 8, "depth": 2, "epochs": 1}
    space = {"lr": Range(0.01, 1.0, log=True), "self": Range(0.1, 0.3), "decay": Range(0.01, 1.0, log=True)}
    methods = {"sa": {"rule": "sa"}, "kp": {"rule": "kp"}}
    sweep = make(tmp_path / "s", settings=settings, space=space, methods=methods, map=("self", "decay"), trials=1)
    drain(sweep)
    results = sweep.results()
    check_results(results)
    middle = Settings(rule="sa", lr=0.1, holdout=0.2, **settings)
    expected = boundary.predict(middle, ("self", "decay"), ([0.1, 0.2, 0.3], [0.01, 0.1, 1.0]))
    for name in ("step_size_number", "log_gain"):
        found = results[f"predicted_{name}"]
        np.testing.assert_allclose(found.sel(rule="sa").values, expected[name].values)
        assert found.sel(rule=["bp", "kp"]).isnull().all()
        np.testing.assert_allclose(found.map_y, [0.01, 0.1, 1.0])
