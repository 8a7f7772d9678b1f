"""A few of the runs of ``python -m bench faults``, cut short; and that the page shows what it measured."""

import pytest

import wtdiag
from bench.evidence import unearned
from bench.evidence.faults import (
    SEEDS,
    SEVERAL,
    Diagnosed,
    cases,
    later_cases,
    networks_table,
    outcome,
    records,
    sizes_table,
    thresholds_table,
)
from bench.evidence.page import DOCS
from bench.evidence.planted import FAULTS, NETWORKS, FaultCase, trained
from tests.diagnostics.synthetic import CONFIG, metrics, plant
from tests.diagnostics.synthetic import healthy as fine
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.thresholds import RECORDS, Record, limit


@pytest.mark.parametrize(
    ("name", "seed"),
    [("target ×10", 200), ("left out of the optimiser", 201), ("step ×50", 202), ("noise in each step", 203)],
)
def test_a_planted_fault_is_named(tmp_path, name, seed):
    case = FaultCase("mlp", (name,), FAULTS[name].rule, seed, epochs=2.6)
    found = outcome(trained(case, tmp_path), tmp_path)
    assert found.named == case.planted[0]
    assert found.is_right
    assert outcome(trained(case, tmp_path), tmp_path) == found  # as it was kept


@pytest.mark.parametrize(("rule", "seed"), [("sa", 200), ("usf", 201)])
def test_a_healthy_run_has_no_finding_of_high_severity(tmp_path, rule, seed):
    found = outcome(trained(FaultCase("mlp", (), rule, seed, epochs=3), tmp_path), tmp_path)
    assert found.learned
    assert "high" not in [finding.severity for finding in found.findings]


@pytest.mark.parametrize("rule", ["ia", "fa"])
def test_a_learning_rate_far_too_large_is_named(tmp_path, rule):
    settings = wtdiag.Settings(rule=rule, depth=4, lr=1000.0, epochs=1, seed=200, device="cpu")
    for _ in wtdiag.Training(settings, tmp_path / "run"):
        pass
    found = wtdiag.diagnose(tmp_path / "run", wtdiag.analyze(tmp_path / "run"))
    assert (found[0].kind, found[0].layer, found[0].severity) == ("forward-step-too-large", "fc4", "high")
    assert "Lower the learning rate of the forward weights from 1000" in found[0].advice[0]
    assert "divergence" in [finding.kind for finding in found]


@pytest.mark.parametrize("rule", ["ia", "fa"])
def test_before_training_nothing_is_inherited(tmp_path, rule):
    for _ in wtdiag.Training(wtdiag.Settings(rule=rule, epochs=0, device="cpu"), tmp_path / "run"):
        pass
    found = wtdiag.diagnose(tmp_path / "run", wtdiag.analyze(tmp_path / "run"))
    assert [each.kind for each in found] == ["undertrained"]


def test_precision_and_recall_are_counted():
    def found(fault, *named, cost=1.0):
        faults = (fault,) if fault else ()
        return Diagnosed(FaultCase("mlp", faults, "sa", 2), diagnose(*named), cost=cost)  # in fc5 by its seed

    gain = plant(fine(), "fc5", norm_ratio=10.0), CONFIG, metrics()
    elsewhere = plant(fine(), "fc4", norm_ratio=10.0), CONFIG, metrics()
    sign = plant(fine(), "fc5", weight_angle=170.0), CONFIG, metrics()
    outcomes = [
        found("target ×10", *gain),
        found("target ×10", *elsewhere),  # the wrong layer
        found("target ×10", *sign),  # the wrong kind
        found("target −1", *sign),
        found("target ×3", *gain, cost=0.0),
        found("target ×3", fine(), CONFIG, metrics(), cost=0.0),  # silent on what costs nothing
        found("", *gain),  # a false alarm
        found("", fine(), CONFIG, metrics()),
    ]
    counted = records(outcomes)
    assert counted.keys() == {"feedback-too-large", "sign-flip"}
    assert counted["feedback-too-large"] == Record(right=2, named=4, planted=4, runs=8)
    assert counted["sign-flip"] == Record(right=1, named=2, planted=1, runs=8)
    assert (counted["sign-flip"].precision, counted["sign-flip"].recall) == (0.5, 1.0)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in networks_table(outcomes).splitlines()[2:]]
    assert rows == [["full strength", "mlp", "4", "2", "0", "2"],
                    ["half strength, costing none", "mlp", "2", "1", "1", "0"]]  # fmt: skip


def test_the_page_shows_what_was_measured():
    page = (DOCS / "findings.md").read_text(encoding="utf-8")
    assert thresholds_table(RECORDS) in page
    runs = list(cases(NETWORKS, SEEDS))
    later = {fault.kind for fault in FAULTS.values() if fault.later}
    counted = {record.runs for kind, record in RECORDS.items() if kind not in {*later, unearned.KIND}}
    assert counted == {sum(len(each.faults) < 2 for each in runs)}
    assert {RECORDS[kind].runs for kind in later} == {len(list(later_cases(SEEDS)))}
    assert RECORDS.keys() == {unearned.KIND, *(fault.kind for fault in FAULTS.values())}
    healthy = sum(train is unearned.healthy for _, train in unearned.RUNS.values())
    record, runs = RECORDS[unearned.KIND], len(unearned.NETWORKS) * len(unearned.SEEDS)
    assert (record.planted, record.runs) == (runs * (len(unearned.RUNS) - healthy), runs * len(unearned.RUNS))
    table = page.split("<!-- networks -->")[1].split("<!-- end")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines() if "strength" in row]
    assert {row[1] for row in rows} >= set(SEVERAL)


def test_the_table_of_sizes_tells_the_sound_from_the_faulty():
    large, small = plant(fine(), "fc4", norm_ratio=10.0, predicted_gain=9.0), plant(fine(), "fc3", norm_ratio=0.1)
    cases = [("", "", fine()), ("feedback-too-large", "fc4", large), ("feedback-too-small", "fc3", small)]
    rows = {row.split("|")[1].strip(" `"): row.split("|")[2:5] for row in sizes_table(cases).splitlines()[2:]}
    assert [float(cell) for cell in rows["norm_ratio_high"]] == [1.1, limit("norm_ratio_high"), 10]
    assert [float(cell) for cell in rows["gain_high"]] == [1.01, limit("gain_high"), 9]
    assert [float(cell) for cell in rows["norm_ratio_low"]] == [1, limit("norm_ratio_low"), 0.1]
