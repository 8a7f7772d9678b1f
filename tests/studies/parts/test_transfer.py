"""The best of a sweep go to other architectures unchanged; what cannot be done is said before anything is trained."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from rich.console import Console

from wtdiag.cli.transfer import transfer
from wtdiag.diagnostics.comparison.results import check_results, read_results
from wtdiag.diagnostics.comparison.tables import transfer_tables
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run, write_json
from wtdiag.studies.engine.cell import Outcome
from wtdiag.studies.engine.workers import Workers
from wtdiag.studies.file.architectures import parse_architectures, require_trainable
from wtdiag.studies.file.space import Range
from wtdiag.studies.parts.dataset import write
from wtdiag.studies.parts.sweep import Sweep
from wtdiag.studies.parts.transfer import Transfer
from wtdiag.trainers.config.settings import Settings

SHARED = {"model": "mlp", "depth": 2, "width": 16, "data": "digits", "epochs": 0.2, "snapshots": 2, "holdout": 0.2}
LR, AMP = {"low": 0.001, "high": 1.0, "log": True}, {"low": 0.01, "high": 1.0, "log": True}
BATCHES = {"choices": [64, 128]}


@pytest.fixture
def sweep(tmp_path):
    """Make the folder of a sweep with three trials of bp and three of ia, of which one diverged and one was pruned."""
    folder = tmp_path / "found"
    folder.mkdir()
    methods = {
        "bp": {"settings": Settings(rule="bp", **SHARED).as_dict(), "space": {"lr": LR, "batch_size": BATCHES}},
        "ia": {
            "settings": Settings(rule="ia", coefficients={"null": 0.5}, **SHARED).as_dict(),
            "space": {"lr": LR, "batch_size": BATCHES, "amp": AMP},
        },
    }
    write_json(folder / "sweep.json", {"methods": methods, "trials": 3, "storage": None, "map": None})
    write(trials(), folder)
    return folder


def trials():
    nan, dims = math.nan, ("rule", "trial")
    variables = {
        "lr": [[0.1, 0.2, 0.3], [0.01, 0.02, 0.03]],
        "batch_size": [[64.0, 128.0, 64.0], [64.0, 64.0, 128.0]],
        "amp": [[nan] * 3, [0.1, 0.2, 0.3]],
        "validation_accuracy": [[0.7, 0.9, 0.9], [nan, 0.1, 0.6]],
        "status": [["finished"] * 3, ["pruned", "diverged", "finished"]],
        "reason": [[""] * 3, ["", "", ""]],
        **{name: np.zeros((2, 3)) for name in ("step_size_number", "log_gain", "steps", "seconds")},
    }
    space = {"lr": LR, "batch_size": BATCHES, "amp": AMP}
    attrs = {"kind": "sweep", "title": "", "settings": json.dumps(SHARED), "space": json.dumps(space)}
    attrs |= {"sampler": "tpe", "trials": 3, "reference": "bp"}
    arrays = {
        name: (dims, np.array(values, dtype=object if "s" in str(values[0])[:3] else None))
        for name, values in variables.items()
    }
    return xr.Dataset(arrays, {"rule": ["bp", "ia"], "trial": [0, 1, 2]}, attrs)


def change(sweep, **variables):
    results = trials()
    for name, (at, value) in variables.items():
        results[name][at] = value
    write(results, sweep)


def test_the_best_finished_trials_are_taken_as_they_were_tried(sweep, tmp_path):
    made = Transfer(tmp_path / "out", sweep=sweep, architectures={"depth 3": {"depth": 3}}, top=2)
    assert made.configurations == {
        "bp": [{"lr": 0.2, "batch_size": 128}, {"lr": 0.3, "batch_size": 64}],  # the first trial wins the tie
        "ia": [{"lr": 0.03, "batch_size": 128, "amp": 0.3}],  # neither the pruned nor the diverged one
    }
    assert [type(each["batch_size"]) for each in made.configurations["bp"]] == [int, int]
    assert made.notes == ("ia has 1 of 2 configurations, because no more of its trials finished",)


def test_nothing_but_the_architecture_and_the_seed_changes(sweep, tmp_path):
    made = Transfer(
        tmp_path / "out", sweep=sweep, architectures={"deep": {"depth": 5, "data": "glyphs"}}, top=1, seeds=(4,)
    )
    assert made.source == "mlp, depth 2, digits"
    assert made.total == len(made.cells) == 4
    for (label, rank, architecture, seed), cell in made.cells.items():
        found = {"bp": {"lr": 0.2}, "ia": {"lr": 0.03, "coefficients": {"null": 0.5, "amp": 0.3}}}[label]
        there = {"deep": {"depth": 5, "data": "glyphs"}, made.source: {}}[architecture]
        wanted = SHARED | {"rule": label, "batch_size": 128, "seed": 4, "holdout": 0.0} | found | there
        assert cell.settings == Settings(**wanted)
        assert (rank, seed) == (0, 4)
    assert not (tmp_path / "out").exists()


def test_results_tell_what_is_pending_and_what_is_absent(sweep, tmp_path):
    made = Transfer(tmp_path / "out", sweep=sweep, architectures={"depth 3": {"depth": 3}}, top=2, seeds=(0, 7))
    done = made.cells["ia", 0, "depth 3", 7]
    made.ended(done, Outcome("finished", "", 5, 0.75, 0.5, 1.5))
    found = made.results()
    check_results(found)
    assert found["status"].dims == ("rule", "configuration", "architecture", "seed")
    assert (found.attrs["kind"], found.attrs["source"], found.attrs["reference"]) == (
        "transfer",
        "mlp, depth 2, digits",
        "bp",
    )
    assert (found["status"].sel(rule="ia", configuration=1) == "absent").all()
    assert int((found["status"] == "pending").sum()) == 2 * 2 * 2 + 2 * 2 - 1
    cell = found.sel(rule="ia", configuration=0, architecture="depth 3", seed=7)
    assert [cell[name].item() for name in ("status", "test_accuracy", "test_loss", "steps", "seconds")] == [
        "finished", 0.75, 0.5, 5.0, 1.5
    ]  # fmt: skip
    assert int(np.isfinite(found["test_accuracy"]).sum()) == 1
    np.testing.assert_array_equal(found["amp"], [[math.nan, math.nan], [0.3, math.nan]])
    np.testing.assert_array_equal(found["lr"], [[0.2, 0.3], [0.03, math.nan]])


@pytest.mark.parametrize(
    ("architectures", "message"),
    [
        ({"a": {"lr": 0.1}}, "to: a: lr=0.1 cannot be used, because lr was searched"),
        ({"a": {"amp": 0.1}}, "to: a: amp=0.1 cannot be used, because amp was searched"),
        ({"a": {"seed": 1}}, "to: a: seed=1 cannot be used, as it is not part"),
        ({"a": {"holdout": 0.1}}, "to: a: holdout=0.1 cannot be used"),
        ({"a": {"dept": 3}}, "to: a: setting: 'dept' is not known; did you mean 'depth'"),
        ({"a": {"depth": "deep"}}, "to: a: bp: depth: expected a whole number, got 'deep'"),
        ({"a": {}}, "to: a: expected at least one setting"),
        ({"mlp, digits": {"model": "mlp"}}, "to: 'mlp, digits' is the architecture of the sweep itself"),
        ({"a b": {"depth": 3}, "a/b": {"depth": 4}}, "to: two architectures would have the same folder"),
    ],
)
def test_architectures_that_cannot_be_are_refused(sweep, tmp_path, architectures, message):
    with pytest.raises(InputError) as error:
        Transfer(tmp_path / "out", sweep=sweep, architectures=architectures)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "resnet20", "data": "glyphs"}, "to: a: bp: depth: 2 cannot be used, because 'resnet20' fixes it"),
        ({"data": "cifar10"}, "to: a: bp: data_dir: missing"),
    ],
)
def test_what_an_architecture_cannot_take_is_said_before_anything_is_made(sweep, tmp_path, more, message):
    made = Transfer(tmp_path / "out", sweep=sweep, architectures={"a": more})
    with pytest.raises(InputError) as error:
        made.sources()
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_numbers_out_of_range_are_refused(sweep, tmp_path):
    for wrong, message in (
        ({"top": 0}, "top: expected"),
        ({"seeds": ()}, "seeds: expected"),
        ({"seeds": (1, 1)}, "seeds"),
    ):
        with pytest.raises(InputError, match=message):
            Transfer(tmp_path / "out", sweep=sweep, architectures={"a": {"depth": 3}}, **wrong)


def test_only_a_finished_sweep_will_do(sweep, tmp_path):
    def made(folder):
        return Transfer(tmp_path / "out", sweep=folder, architectures={"a": {"depth": 3}})

    with pytest.raises(InputError, match="is not the folder of a sweep; expected one that wtdiag sweep wrote"):
        made(tmp_path)
    change(sweep, status=((1, 0), "running"))
    with pytest.raises(InputError, match="is not finished, 1 of its trials have not ended"):
        made(sweep)
    change(sweep, status=((slice(None), slice(None)), "diverged"))
    with pytest.raises(InputError, match="none of its trials finished; there is nothing to transfer"):
        made(sweep)
    (sweep / "results.nc").unlink()
    with pytest.raises(InputError, match="is not finished; continue it first"):
        made(sweep)


@pytest.mark.parametrize(
    "methods",
    [None, {"bp": {}, "ia": {}}, {"bp": {"settings": {}, "space": {"lr": 3}}}, {"x": {"settings": {}, "space": {}}}],
)
def test_a_strangers_sweep_is_checked(sweep, tmp_path, methods):
    write_json(sweep / "sweep.json", {"methods": methods})
    with pytest.raises(
        InputError, match=r"expected the settings and the space of each method|does not belong to the sweep in"
    ):
        Transfer(tmp_path / "out", sweep=sweep, architectures={"a": {"depth": 3}})


def test_another_plan_is_refused_and_the_same_goes_on(sweep, tmp_path):
    def made(depth=3, **more):
        return Transfer(
            tmp_path / "out", sweep=sweep, architectures={"a": {"depth": depth}}, **{"top": 1, "seeds": (0,), **more}
        )

    (source,) = made().sources()
    del source
    made(depth=3)
    for other, what in (({"depth": 4}, "architectures"), ({"seeds": (0, 1)}, "seeds"), ({"top": 2}, "configurations")):
        with pytest.raises(InputError, match=f"holds a transfer with other {what}; continue that one, or choose"):
            made(**other)
    change(sweep, validation_accuracy=((0, 0), 0.95))
    with pytest.raises(InputError, match="holds a transfer with other configurations"):
        made()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    with pytest.raises(InputError, match="holds something other than a transfer"):
        Transfer(tmp_path / "mine", sweep=sweep, architectures={"a": {"depth": 3}})


def test_two_processes_do_not_share_a_folder(sweep, tmp_path):
    first, second = (
        Transfer(tmp_path / "out", sweep=sweep, architectures={"a": {"depth": 3}}, top=1, seeds=(0,)) for _ in range(2)
    )
    assert first.sources() == first.sources() == [first]
    with pytest.raises(InputError, match=r"another process works in .*out$"):
        second.sources()


@pytest.mark.slow
def test_the_command_trains_reports_and_goes_on(sweep):
    words = [
        str(sweep),
        "--to",
        "depth=3",
        "--top",
        "1",
        "--seed",
        "0",
        "--seed",
        "5",
        "--jobs",
        "1",
        "--format",
        "html",
    ]
    done = CliRunner().invoke(transfer, words)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("accuracy, % of bp's")
    assert any(line.startswith("ia") for line in lines)
    folder = sweep.parent / "found-transfer"
    assert [line.split("/")[-1] for line in lines if line.startswith("/")] == ["results.nc", "transfer.html"]

    made = Transfer(folder, sweep=sweep, architectures={"depth 3": {"depth": 3}}, top=1, seeds=(0, 5))
    found = read_results(folder / "results.nc")
    assert (found["status"] == "finished").all()
    runs = {key: open_run(cell.path) for key, cell in made.cells.items()}
    assert len(runs) == found["status"].size == 2 * 2 * 2  # methods, architectures, seeds
    for (label, rank, architecture, seed), run in runs.items():
        cell = found.sel(rule=label, configuration=rank, architecture=architecture, seed=seed)
        assert cell["test_accuracy"].item() == run.metrics["test_accuracy"].iloc[-1]
        assert "validation_accuracy" not in run.metrics
    for seed in (0, 5):  # paired: the rules start from the same W
        bp, ia = (runs[label, 0, "depth 3", seed].layer("fc1")["forward"].values[0] for label in ("bp", "ia"))
        np.testing.assert_array_equal(bp, ia)
    xr.testing.assert_equal(made.results(), found)  # as read from the runs
    with Workers(1) as workers:
        workers.run(*made.sources())
        assert not workers.link.started  # nothing is left to do: no worker was needed


@pytest.mark.parametrize("count", [1, 4, 11])
def test_the_table_is_no_wider_than_a_terminal(count):
    names = ["mlp, depth 2, digits", *(f"model{i}, depth {i}, a-long-name-of-data" for i in range(count))]
    dims = {"rule": ["bp", "a-method-with-a-name"], "configuration": [0, 1], "architecture": names, "seed": [0, 1, 2]}
    shape = tuple(map(len, dims.values()))
    accuracy = np.random.default_rng(0).uniform(0.5, 1, shape)
    accuracy[1, 1, 0, 0] = math.nan
    status = np.where(np.isnan(accuracy), "failed", "finished")
    results = xr.Dataset(
        {"test_accuracy": (tuple(dims), accuracy), "status": (tuple(dims), status)}, dims, {"reference": "bp"}
    )
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in transfer_tables(results):
        console.print(table)
    console.file.close()
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("1 left out") == 1
    assert text.count(" to ") == 2 * len(names)


def test_architectures_are_read_from_words():
    words = ["depth=8", "model=conv,data=glyphs", "batch_norm=false", "width=128", "data=cifar10,data_dir=/x"]
    assert parse_architectures(words) == {
        "depth 8": {"depth": 8},
        "conv, glyphs": {"model": "conv", "data": "glyphs"},
        "no batch norm": {"batch_norm": False},
        "width 128": {"width": 128},
        "cifar10": {"data": "cifar10", "data_dir": "/x"},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["depth"], "to: expected NAME=VALUE"),
        (["depth=8,"], "to: expected NAME=VALUE"),
        (["depth=8,depth=9"], "with different names"),
        (["dept=8"], "to: setting: 'dept' is not known; did you mean 'depth'"),
        (["model=conv,depth=8", "depth=8,model=conv"], "to: 'conv, depth 8' is given twice"),
    ],
)
def test_words_that_mean_nothing_are_refused(words, message):
    with pytest.raises(InputError) as error:
        parse_architectures(words)
    assert message in str(error.value)


def test_a_model_that_cannot_take_the_images_is_refused():
    with pytest.raises(InputError, match="to: a: model: 'vgg11' cannot take 1x8x8 images"):
        require_trainable({"fine": Settings(), "a": Settings(model="vgg11")})


def test_what_a_sweep_finds_is_what_is_transferred(tmp_path):
    space = {"lr": Range(0.001, 0.1, log=True), "batch_size": Range(choices=(64, 128)), "amp": Range(0.1, 0.2)}
    searched = Sweep(
        tmp_path / "sweep", methods={"ia": {"rule": "ia"}}, settings=SHARED, space=space, sampler="random", trials=2
    )
    with pytest.raises(InputError, match="is not finished, 4 of its trials have not ended"):
        Transfer(tmp_path / "out", sweep=searched, architectures={"a": {"depth": 3}})
    for search in searched.sources():
        for accuracy in (0.4, 0.6):
            search.ended(search.next(), Outcome("finished", "", 1, accuracy, 1.0, 1.0))
    write(searched.results(), searched.out)
    made = [
        Transfer(tmp_path / "out", sweep=each, architectures={"a": {"depth": 3}}, top=2)
        for each in (searched, searched.out)
    ]
    for each in made:
        assert each.configurations == {label: searched.best(label, 2) for label in ("bp", "ia")}
    assert [cell.settings for cell in made[0].cells.values()] == [cell.settings for cell in made[1].cells.values()]
