"""Which runs are paired, and what is said of their differences."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

from wtdiag.diagnostics.analysis.analyze import write_analysis
from wtdiag.diagnostics.comparison import pairing
from wtdiag.diagnostics.comparison.compare import COLUMNS, UNITS, compare
from wtdiag.diagnostics.comparison.tables import comparison_tables, grid_table
from wtdiag.diagnostics.comparison.told import told
from wtdiag.diagnostics.findings.finding import Finding
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import ROLES, settings_with_role
from wtdiag.probes.records.schema import Run, open_run, write_json

SETTINGS = {"model": "mlp", "depth": 4, "data": "digits", "lr": 0.05, "feedback_lr": None, "delay": 0.0,
            "update_noise": 0.0, "noise_on": "both", "device": "auto", "coefficients": {}}  # fmt: skip


@pytest.fixture
def make(tmp_path):
    """Make a run directory with a config and metrics, and if there are angles, an analysis."""
    numbers = itertools.count()

    def run(rule, accuracy=0.9, *, seed=0, status="finished", coefficients=None, angles=None, name=None, **settings):
        path = tmp_path / (name or f"{next(numbers)}-{rule}")
        path.mkdir()
        settings = SETTINGS | {"rule": rule, "seed": seed, "coefficients": coefficients or {}} | settings
        about = {"name": rule, **(coefficients or {})}
        network = {"shape": [1, 8, 8], "classes": 10}
        write_json(path / "config.json", {"status": status, "rule": about, "settings": settings, "network": network})
        rows = [{"step": 1, "test_accuracy": 0.99, "test_loss": 0.01}, {"step": 2, "loss": 1.0}]
        rows += [{"step": 3, "test_accuracy": accuracy, "test_loss": 1 - accuracy}, {"step": 4, "loss": 1.0}]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if angles is not None:
            measures = {name: (("step", "layer"), np.array(values, float)) for name, values in angles.items()}
            steps, layers = next(iter(measures.values()))[1].shape
            coords = {"step": range(steps), "layer": [f"fc{i}" for i in range(layers)]}
            coords["carries_error"] = "layer", [False] + [True] * (layers - 1)
            write_analysis(xr.Dataset(measures, coords), path / "analysis.nc")
        return open_run(path)

    return run


def unpaired(table):
    return {run.rsplit("/", 1)[1]: reason for run, reason in table.attrs["unpaired"].items()}


def validated(run):
    """Return the run as one that held out a part of its training set."""
    path = run.path / "metrics.jsonl"
    path.write_text(path.read_text().replace("test_", "validation_"))
    return open_run(run.path)


def test_held_out_examples_are_compared_where_there_is_no_test(make):
    runs = [
        validated(make(*run, seed=1, depth=depth, holdout=0.2)) for depth in (4, 8) for run in (("fa", 0.8), ("bp",))
    ]
    runs.append(validated(make("kp", seed=1, depth=8, holdout=0.2, status="diverged")))
    table = compare(runs)
    assert not table.measure.str.startswith("test").any()
    fa = table[(table.rule == "fa") & (table.measure == "validation_accuracy")]
    np.testing.assert_allclose(fa.difference, -0.1)
    (kp,) = table[(table.rule == "kp") & (table.measure == "validation_accuracy")].itertuples()
    assert kp.mean == pytest.approx(0.1)
    assert table[table.measure == "depth_gap"].rule.tolist() == ["fa"]


def test_differences_of_pairs_by_seed(make):
    rule = {0: 0.8, 1: 0.75, 2: 0.9}
    bp = {0: 0.95, 1: 0.85, 2: 0.93}
    runs = [make("fa", rule[seed], seed=seed) for seed in (2, 0, 1)] + [make("bp", bp[s], seed=s) for s in bp]
    table = compare(runs)
    assert tuple(table.columns) == COLUMNS
    assert table.measure.tolist() == ["test_accuracy", "test_loss"]
    assert not table.attrs["unpaired"]
    row = table.iloc[0]
    assert (row.conditions, row.rule, row.reference, row.n, row.diverged) == ("mlp, depth 4, digits", "fa", "bp", 3, 0)
    differences = np.array([rule[seed] - bp[seed] for seed in bp])
    assert row["mean"] == pytest.approx(np.mean(list(rule.values())))
    assert row.reference_mean == pytest.approx(np.mean(list(bp.values())))
    assert row.difference == pytest.approx(differences.mean())
    half = 4.302653 * differences.std(ddof=1) / 3**0.5  # the 97.5 % quantile of t with 2 degrees of freedom
    assert (row.low, row.high) == pytest.approx((row.difference - half, row.difference + half))
    assert table.equals(compare(runs))
    np.testing.assert_allclose(table.difference[1], -row.difference)


def test_one_pair_has_no_interval_and_equal_ones_a_point(make):
    table = compare([make("fa", 0.8), make("bp", 0.9)])
    assert np.isnan(table[["low", "high"]]).all(axis=None)
    assert table.n.tolist() == [1, 1]
    table = compare([make(rule, accuracy, seed=s) for s in (0, 1) for rule, accuracy in (("fa", 0.75), ("bp", 1.0))])
    assert table.low[0] == table.high[0] == table.difference[0] == -0.25


def test_a_run_that_diverged_answers_at_chance(make):
    runs = [make("fa", 0.8, seed=0), make("bp", 0.9, seed=0), make("bp", 0.9, seed=1)]
    table = compare([*runs, make("fa", 0.99, seed=1, status="diverged")])
    accuracy, loss = table.iloc[0], table.iloc[1]
    assert accuracy.difference == pytest.approx(((0.8 - 0.9) + (0.1 - 0.9)) / 2)
    assert loss["mean"] == pytest.approx((0.2 + math.log(10)) / 2)
    assert accuracy.n == 2
    assert accuracy.diverged == 1


def test_a_run_that_diverged_is_said_to_have_done_so_wherever_its_accuracy_is(make):
    table = compare([make("bp", accuracy=0.9), make("fa", accuracy=0.5), make("kp", accuracy=0.6, status="diverged")])
    (shown,) = comparison_tables(table)
    assert "diverged" in str(shown.caption)
    accuracy = told(table, {})[0]
    assert "kp, which diverged and counts as answering at chance, is" in accuracy
    assert "fa is 40.0 points below" in accuracy
    (shown,) = comparison_tables(table[table["diverged"] == 0])
    assert shown.caption is None


def test_the_most_severe_finding_is_not_said_to_be_alone_if_it_is_not():
    def of(severity):
        return [Finding("sign-flip", None, 0, 1, severity, 1.0, "B is wrong.", (), "", (), "", "")]

    runs = {"a": of("low"), "b": of("high"), "c": of("high"), "d": of("medium")}
    assert told(pd.DataFrame(), runs) == ["The most severe finding is in b: B is wrong. Findings as severe are in c."]
    assert told(pd.DataFrame(), {"a": of("low"), "b": of("high")})[-1].endswith("in b: B is wrong.")


def test_what_may_differ_and_what_may_not(make):
    bp = make("bp", name="bp")
    same = make("ia", feedback_lr=0.1, feedback_optimizer="adam", delay=1.0, device="cuda", coefficients={"amp": 0.1})
    noisy = make("kp", update_noise=0.1, noise_on="feedback")
    other = {
        "lr": make("fa", lr=0.1, name="lr"),
        "seed": make("fa", seed=1, name="seed"),
        "depth": make("fa", depth=8, name="depth"),
        "model, width": make("fa", model="conv", width=3, name="model, width"),
        "update_noise": make("fa", update_noise=0.1, name="update_noise"),
    }
    table = compare([bp, same, noisy, *other.values()])
    assert table.rule.unique().tolist() == ["ia", "kp"]
    assert unpaired(table) == {
        name: f"no run of bp has its settings and seed; {bp.path} differs in {name}" for name in other
    }


@pytest.mark.parametrize("name", sorted(settings_with_role(*ROLES)))
def test_the_role_of_a_setting_says_whether_runs_that_differ_in_it_pair(make, name):
    free = settings_with_role("method", "feedback", "location", "recording")
    values = {"rule": "fa", "coefficients": {"scale": 2.0}}
    table = compare([make("bp"), make(values.get(name, "fa"), **({} if name in values else {name: 7}))])
    assert (not unpaired(table)) == (name in free)


def test_every_run_is_in_a_pair_or_told_of(make, tmp_path):
    runs = [make("bp"), make("fa"), make("fa", name="again"), make("sa", status="running", name="runs")]
    runs += [make("bp", lr=0.7, name="alone"), make("wm", lr=3.0, name="far")]
    (tmp_path / "own").mkdir()
    write_json(tmp_path / "own" / "config.json", {"status": "finished", "rule": {"name": "fa"}, "settings": {}})
    runs.append(open_run(tmp_path / "own"))
    table = compare(runs)
    assert table.rule.unique().tolist() == ["fa"]
    assert unpaired(table) == {
        "again": f"has rule, settings and seed of {runs[1].path}",
        "runs": "is not finished, but running",
        "alone": "no other run has its settings and seed",
        "far": f"no run of bp has its settings and seed; {runs[0].path} differs in lr",
        "own": "has no settings with a seed in its config.json",
    }
    empty = make("fa", depth=9, name="empty")
    (empty.path / "metrics.jsonl").write_text("")
    table = compare([make("bp", depth=9), open_run(empty.path)])
    assert table.empty
    assert unpaired(table) == {"empty": "has neither an accuracy nor an analysis"}


def test_the_reference(make):
    runs = [make("ia", 0.7), make("fa", 0.8), make("kp", 0.85)]
    assert compare(runs).reference.unique().tolist() == ["ia"]
    table = compare(runs, "kp")
    assert table[table.measure == "test_accuracy"].difference.round(9).tolist() == [-0.15, -0.05]
    assert compare([*runs, make("bp")]).reference.unique().tolist() == ["bp"]
    with pytest.raises(InputError, match=r"reference: 'pk' is not known\. Choices: ia, fa, kp"):
        compare(runs, "pk")


def test_variants_of_a_rule_are_told_apart(make):
    runs = [make("bp"), make("ia", 0.7, coefficients={"amp": 0.1, "null": 1.0})]
    runs += [make("ia", 0.8, coefficients={"amp": 0.2, "null": 1.0}), make("ia", 0.6, feedback_lr=0.5,
             coefficients={"amp": 0.1, "null": 1.0})]  # fmt: skip
    table = compare(runs)
    assert table.rule.unique().tolist() == [f"ia {words}" for words in (
        "amp=0.1 feedback_lr=None", "amp=0.2 feedback_lr=None", "amp=0.1 feedback_lr=0.5"
    )]  # fmt: skip
    # Of several variants of the reference rule the first is the reference, the others are compared with it.
    table = compare(runs[1:])
    assert table[table.measure == "test_accuracy"].difference.round(9).tolist() == [0.1, -0.1]


def test_angles_of_analysed_runs(make):
    nan = np.nan
    measured = {"weight_angle": [[1, 50, 70], [2, 40, 60], [3, nan, 30], [nan] * 3], "error_angle": [[9, 8, 7]] * 4}
    zero = {"weight_angle": np.zeros((4, 3)), "error_angle": np.zeros((4, 3))}
    table = compare([make("fa", angles=measured), make("bp", angles=zero), make("kp")]).set_index(["rule", "measure"])
    assert table.loc[("fa", "weight_angle"), "difference"] == 30  # the last that there is, of layers that carry error
    assert table.loc[("fa", "error_angle"), "mean"] == 9
    assert table.loc[("fa", "error_angle"), "units"] == "degree"
    assert ("kp", "weight_angle") not in table.index
    assert {"weight_angle", "error_angle"} <= set(table.index.get_level_values(1)) <= set(UNITS)


def test_depth_gap(make):
    accuracies = {
        "bp": {2: (0.9, 0.92), 4: (0.8, 0.8), 8: (0.9, 0.88)},
        "fa": {2: (0.8, 0.82), 4: (0.1, 0.1), 8: (0.5, 0.4)},
    }
    runs = [make(rule, a, seed=seed, depth=depth) for rule, depths in accuracies.items()
            for depth, both in depths.items() for seed, a in enumerate(both)]  # fmt: skip
    table = compare([*runs, make("fa", depth=8, seed=5), make("bp", depth=8, seed=5)])
    (gap,) = table[table.measure == "depth_gap"].itertuples()
    assert gap.conditions == "mlp, digits, depth 2 to 8"
    assert gap.mean == pytest.approx((-0.3 - 0.42) / 2)
    assert gap.reference_mean == pytest.approx((0.0 - 0.04) / 2)
    assert gap.difference == pytest.approx((-0.3 + (-0.42 + 0.04)) / 2)
    assert gap.n == 2
    assert "depth_gap" not in compare(runs[:2] + runs[6:8]).measure.values
    deep = table[table.conditions == "mlp, depth 8, digits"]
    assert deep.n.tolist() == [3, 3]


def test_conditions_are_told_apart(make):
    runs = [make(rule, lr=lr, depth=None) for rule in ("bp", "fa") for lr in (0.1, 0.2)]
    assert compare(runs).conditions.unique().tolist() == ["mlp, digits, lr=0.1", "mlp, digits, lr=0.2"]


@pytest.mark.parametrize("rule", ["x" * 60, "fa\x1b[2J", "[bold]fa"])
def test_tables_are_eighty_columns_of_plain_text(make, rule):
    runs = [make("bp"), make("fa", status="diverged"), make(rule, coefficients={"amp": "linear:0.123456:0.654321"})]
    runs += [make(rule, seed=seed, coefficients={"amp": 0.1}) for seed in (0, 1)] + [make("bp", seed=1)]
    console = Console(width=200, record=True, file=open("/dev/null", "w"), force_terminal=False)  # noqa: SIM115
    for shown in comparison_tables(compare(runs)):
        console.print(shown, width=80)
    console.file.close()
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "1*" in text
    assert "[bold]" in text or "bold" not in rule


def test_nothing_to_compare():
    table = compare([])
    assert table.empty
    assert list(comparison_tables(table)) == []
    assert isinstance(table, pd.DataFrame)


@pytest.mark.parametrize("damage", [
    {"settings": {"seed": [1], "depth": "deep", "coefficients": 3, "model": None}},
    {"rule": 3}, {"network": "x"}, {"network": {"classes": 0}, "status": "diverged"},
])  # fmt: skip
def test_configs_of_strangers(make, damage):
    runs = [make("bp"), make("fa")]
    for run in runs:
        write_json(run.path / "config.json", run.config | damage)
    table = compare([open_run(run.path) for run in runs])
    if "status" in damage:  # they diverged, and there is no chance level for what has no classes
        assert set(unpaired(table)) == {run.path.name for run in runs}
        assert table.empty
        return
    assert table.measure.tolist() == ["test_accuracy", "test_loss"]
    assert table.difference.tolist() == [0, 0]
    (runs[0].path / "metrics.jsonl").write_text(
        '{"step": 1, "test_accuracy": "high", "test_loss": [1]}\n{"step": 2, "test_accuracy": 0.5}\n'
    )
    (row,) = compare([open_run(run.path) for run in runs]).itertuples()
    assert (row.measure, row.reference_mean, row.difference) == ("test_accuracy", 0.5, pytest.approx(0.4))


@pytest.mark.parametrize("what", ["pair", "method_names"])
def test_the_work_grows_with_the_number_of_runs_and_not_faster(what, monkeypatch):
    turned, plain = [], pairing.key

    def counted(value):
        turned.append(value)
        return plain(value)

    monkeypatch.setattr(pairing, "key", counted)

    def work(count):
        runs = []
        for number in range(count):
            rule, coefficients = ("bp", {}) if number % 2 else ("kp", {"decay": number})
            settings = SETTINGS | {"rule": rule, "seed": 0, "coefficients": coefficients, "lr": number}
            runs.append(Run(Path(str(number)), {"status": "finished", "settings": settings}))
        entries = [pairing.compared_run(run) for run in runs]
        turned.clear()
        pairing.pair(runs) if what == "pair" else pairing.method_names(entries)
        return len(turned)

    assert work(80) < 2.5 * work(40)


def test_the_interval_of_few_seeds_ends_where_an_accuracy_can():
    over, status = ("rule", "seed"), np.full((1, 2), "finished", dtype=object)
    results = xr.Dataset({"test_accuracy": (over, [[0.5, 1.0]]), "status": (over, status)}, {"rule": ["ia"]})
    assert list(grid_table(results).columns[2].cells) == ["0.0 to 100.0"]
