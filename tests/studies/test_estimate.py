"""A dry run finds what is wrong with a study, counts what it is made of, and leaves nothing behind."""

import io
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from wtdiag.probes.errors import InputError
from wtdiag.studies import estimate as dry
from wtdiag.studies.engine.cell import Cell
from wtdiag.studies.estimate import dry_run, rehearse, show
from wtdiag.studies.file.plan import read_plan
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data import batches
from wtdiag.trainers.data.synthetic import synthetic
from wtdiag.trainers.loop import cost
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.metrics import StepResult
from wtdiag.trainers.loop.step import Stepper


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(cost, "_TIMED_SECONDS", 0.01)


def cells(tmp_path, *settings):
    return [Cell(tmp_path / str(i), Settings(**each)) for i, each in enumerate(settings)]


def printed(estimate):
    out = io.StringIO()
    show(estimate, Console(file=out, width=200))
    return out.getvalue()


def test_cells_are_of_one_kind_if_they_cost_the_same(tmp_path):
    base = {"rule": "ia", "epochs": 2.0}
    same = [base | {"seed": seed, "lr": lr} for seed in (0, 1) for lr in (0.1, 0.2)]
    same += [base | {"coefficients": {"amp": amp}} for amp in (0.1, 0.2)]
    other = [base | {"depth": 3}, base | {"epochs": 1.0}, base | {"rule": "fa"}]
    estimate = dry_run(cells(tmp_path, *same, *other), jobs=2)
    assert [kind.runs for kind in estimate.kinds] == [4, 2, 1, 1, 1]
    assert len({kind.label for kind in estimate.kinds}) == 5
    assert estimate.kinds[2].label == "ia, mlp, depth 3, epochs 2"
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_is_made_of_is_counted(tmp_path):
    settings = Settings(
        rule="fa", depth=2, width=32, batch_norm=False, epochs=2, batch_size=64, holdout=0.2, snapshots=5
    )
    (kind,) = dry_run([Cell(tmp_path / "run", settings)] * 3, jobs=1).kinds
    weights, biases, feedback = 64 * 32 + 32 * 10, 32 + 10, 32 * 10  # B of the first layer carries nothing
    training = Training(settings, tmp_path / "run")
    assert (kind.cost.parameters, kind.runs, kind.cost.steps) == (weights + biases, 3, training.total) == (2410, 3, 36)
    assert kind.cost.snapshot_bytes == len(training.plan) * training.plan.snapshot_bytes
    # W, its gradient and its momentum; B; for the backward pass the input, the hidden layer, its derivative (which is
    # kept as its output) and the softmax with its classes.
    held = sum(tensor.numel() for tensor in training.model.state_dict().values())
    assert held in (weights + biases + feedback, weights + biases + weights)
    assert 4 * (held + 2 * (weights + biases)) < kind.cost.memory
    assert kind.cost.memory <= 4 * (held + 2 * (weights + biases) + 64 * (64 + 2 * 32 + 10 + 2 + 2))
    assert math.isclose(kind.hours, 3 * 36 * kind.cost.step_seconds / 3600)


def test_memory_grows_with_the_batch_by_what_is_kept_for_each_example(tmp_path):
    wanted = ({"rule": "bp", "model": "conv", "depth": 3, "batch_size": batch} for batch in (8, 16, 32))
    small, middle, large = (kind.cost.memory for kind in dry_run(cells(tmp_path, *wanted), jobs=1).kinds)
    assert large - middle == 2 * (middle - small) > 0


def test_a_step_is_timed_on_as_much_of_the_batch_as_there_is_time_for(tmp_path, monkeypatch):
    wanted = cells(tmp_path, {"rule": "bp", "batch_size": 512})
    monkeypatch.setattr(cost, "STEP_SECONDS", 1e6)  # on a machine however busy
    (kind,) = dry_run(wanted, jobs=1).kinds
    assert kind.cost.examples == 512
    assert "scaled up" not in printed(dry_run(wanted, jobs=1))
    monkeypatch.setattr(cost, "STEP_SECONDS", 0.0)
    estimate = dry_run(wanted, jobs=1)
    assert estimate.kinds[0].cost.examples == 2
    assert "* timed on part of the batch and scaled up" in printed(estimate)


def test_time_is_that_of_the_runs_shared_among_the_jobs(tmp_path):
    estimate = dry_run(cells(tmp_path, {"rule": "bp"}, {"rule": "kp"}), jobs=2)
    assert estimate.at_once == 2
    assert math.isclose(estimate.hours, sum(kind.hours for kind in estimate.kinds) / 2)
    with pytest.raises(InputError, match="jobs: expected a positive number of processes, got 0"):
        dry_run([], jobs=0)


@pytest.mark.parametrize("more", [{"delay": 1.0}, {"alternate": 1}, {"precision": "bfloat16"}, {"update_noise": 0.1}])
def test_all_ways_to_take_a_step_are_tried(tmp_path, more):
    coefficients = {"decay": "linear:0.1:0"}
    estimate = dry_run(cells(tmp_path, {"rule": "ia", "coefficients": coefficients, **more}), jobs=1)
    assert estimate.problems == ()
    assert estimate.kinds[0].cost.step_seconds > 0


def test_missing_data_are_told_of_and_stood_in_for(tmp_path):
    folder = str(tmp_path / "none")
    estimate = dry_run(
        cells(tmp_path, *({"rule": rule, "data": "cifar10", "data_dir": folder} for rule in ("bp", "fa")))
    )
    assert estimate.problems == ()
    (sentence,) = estimate.missing
    assert sentence.startswith(f"{folder}/cifar-10-batches-py: is missing")
    assert estimate.kinds[0].cost.steps == 10 * math.ceil(50_000 / 64)
    assert f"missing: {folder}" in printed(estimate).replace("\n", "")


def test_nothing_is_fetched(tmp_path, monkeypatch):
    def fetch(*args, **kwargs):
        raise AssertionError("fetched")

    monkeypatch.setattr("wtdiag.trainers.data.archives._download", fetch)
    settings = {"rule": "bp", "data": "mnist", "data_dir": str(tmp_path), "download": True}
    assert len(dry_run(cells(tmp_path, settings)).missing) == 1


def test_damaged_data_are_a_problem(tmp_path):
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    estimate = dry_run(cells(tmp_path, {"rule": "bp", "data": "cifar10", "data_dir": str(tmp_path / "data")}))
    assert estimate.missing == ()
    assert "this official file" in estimate.problems[0]
    assert estimate.kinds[0].cost.steps > 0  # the rest is tried all the same


def test_an_image_that_cannot_be_read_is_a_problem(tmp_path):
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "1.png").write_bytes(b"no image")
    settings = {"rule": "bp", "data": "imagefolder", "data_dir": str(tmp_path), "image_size": 16}
    estimate = dry_run(cells(tmp_path / "out", settings))
    assert len(estimate.problems) == 1
    assert "1.png: cannot be read" in estimate.problems[0]
    assert estimate.kinds[0].cost is None
    assert estimate.hours == 0.0


def test_all_problems_are_told_after_a_whole_table(tmp_path):
    wanted = (
        {"rule": "bp"},
        {"rule": "bp", "model": "resnet20", "depth": 8},
        {"rule": "bp", "model": "resnet20", "data": "cifar10", "image_size": 64},
        {"rule": "bp", "data": "imagefolder"},
        {"rule": "bp", "max_gb": 1e-9},
    )
    estimate = dry_run(cells(tmp_path, *wanted), jobs=1)
    assert [kind.cost is None for kind in estimate.kinds] == [False, True, True, True, True]
    texts = "\n".join(estimate.problems)
    for words in (
        "depth: 8 cannot be used",
        "image_size: 64 cannot be used",
        "'imagefolder' is read from files",
        "max_gb: ",
    ):
        assert words in texts
    assert len(estimate.problems) == 4
    lines = printed(estimate).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("cannot be trained" in line for line in lines) == 4


def test_a_step_that_fails_or_is_not_finite_is_a_problem(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("out of memory\nby 1 byte")

    monkeypatch.setattr(Stepper, "take", fail)
    assert dry_run(cells(tmp_path, {"rule": "bp"})).problems == ("bp, mlp: a training step fails (out of memory)",)
    monkeypatch.setattr(
        Stepper, "take", lambda *args, **options: StepResult(torch.tensor(math.nan), torch.ones(()), (), ())
    )
    assert "loss: nan at the first step" in dry_run(cells(tmp_path, {"rule": "bp"})).problems[0]


@pytest.mark.parametrize(("depth", "code"), [("[2, 3]", 0), ("[2, 100]", 2)])
def test_a_study_is_rehearsed(tmp_path, capsys, monkeypatch, depth, code):
    monkeypatch.setattr(
        dry, "_tried", lambda kind, data: replace(kind, problem="too deep" * (kind.settings.depth == 100))
    )
    file = tmp_path / "mine.toml"
    file.write_text(f"""
[settings]
epochs = 1
[[grid]]
factors = {{rule = ["bp", "fa"], depth = {depth}, seed = [0, 1, 2]}}
""")
    assert rehearse(read_plan(str(file)), jobs=1) == code
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("12 runs, 1 at a time")]
    assert len([line for line in lines if line.startswith("problem: ") and "too deep" in line]) == code
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_neither_threads_nor_random_numbers_are_touched(tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    dry_run(cells(tmp_path, {"rule": "wm"}), jobs=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_step_that_is_timed_is_the_one_that_a_run_takes(tmp_path):
    settings, noise = Settings(rule="kp", epochs=1, warmup=0), synthetic("digits")
    run, tried = (Training(settings, tmp_path / name, dataset=noise) for name in ("run", "tried"))
    next(iter(run))
    batch = next(batches(noise.train, settings.batch_size, seed=settings.seed, epoch=0))
    tried.stepper.take(0, *batch)
    theirs = tried.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in run.model.state_dict().items())
