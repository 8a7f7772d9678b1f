"""The first page says the same as the run: its accuracy, what it is held against, how much of it was converted."""

import json
import re

import pytest
from click.testing import CliRunner

from tests.reports.runs import analysis, finding, write_run
from wtdiag.cli import cli
from wtdiag.diagnostics.analysis.accuracy import Reference
from wtdiag.diagnostics.findings.finding import Evidence, read_findings, read_reference, write_findings
from wtdiag.reports.run.facts import facts
from wtdiag.reports.run.findings_section import verdict
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load
from wtdiag.reports.run.summary import glance

LIGHT = analysis(2, 3)[["weight_angle"]]
NETWORK = {"classes": 36, "majority": 0.05}


def notes(run):
    return {number.label: (number.value.replace("\xa0", " "), number.note.replace("\xa0", " "))
            for number in glance(facts(load(run))).numbers}  # fmt: skip


def test_accuracy_stands_beside_chance_and_backprop(tmp_path):
    run = write_run(tmp_path / "r", LIGHT, accuracy=0.5, findings=[], network=NETWORK, converted=0.67)
    assert notes(run)["test accuracy"] == ("50.0 %", "at step 2000; 5.0 % by chance")
    assert notes(run)["weights converted"] == ("67.0 %", "share of all weight entries; the rest keeps backprop")
    write_findings([finding(severity="none")], run / "findings.json", Reference("bp8", "bp", 0.885, "test"))
    assert notes(run)["test accuracy"][1] == "at step 2000; 5.0 % by chance; 88.5 % by backprop"
    assert single(load(run)).headline == "It learns, but not as well as it might; 38.5 points below backprop (bp8)"


def test_an_old_run_says_what_it_knows(tmp_path):
    run = write_run(tmp_path / "r", LIGHT, accuracy=0.5, findings=[finding(severity="none")])
    assert notes(run)["test accuracy"][1] == "at step 2000"
    assert "weights converted" not in notes(run)
    assert single(load(run)).headline == "No fault found; not compared with backprop"


def test_time_that_was_too_short_stands_beside_the_fault(tmp_path):
    short = finding("undertrained", None, "medium", "Training was too short")
    run = write_run(tmp_path / "r", LIGHT, findings=[finding(severity="medium"), short])
    source = load(run)
    assert single(source).headline.startswith("Still learning when training ended;")
    assert verdict(source, facts(source)).startswith("S of fc3 is 3.2. Training was too short. ia:")


def test_nothing_else_is_said_of_too_few_steps(tmp_path):
    few = Evidence("step", 1.0, 20.0, "<", "step", 1)
    short = finding("undertrained", None, "medium", "Training took 1 step", evidence=(few,))
    source = load(write_run(tmp_path / "r", LIGHT, findings=[finding(severity="medium"), short]))
    assert single(source).headline.startswith("Too few steps to tell;")
    assert verdict(source, facts(source)).startswith("Training took 1 step. ia:")


def test_an_unmeasured_confidence_is_not_a_number(tmp_path):
    run = write_run(tmp_path / "r", LIGHT, findings=[finding(confidence=float("nan"))])
    details = dict(single(load(run)).sections[0].blocks[1].entries[0].details)
    assert details["Confidence"] == "not measured in test runs whose fault was known"


def test_the_reference_survives_the_disk_and_the_report(tmp_path):
    own = write_run(tmp_path / "r", LIGHT, accuracy=0.5, findings=[finding()], network=NETWORK)
    other = write_run(tmp_path / "bp8", LIGHT, rule="bp", accuracy=0.9, network=NETWORK)
    words = ["report", str(own), "--against", str(other), "--format", "html"]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    assert read_reference(own / "findings.json") == Reference("bp8", "bp", 0.9, "test", "")
    assert "step-too-large" not in [each.kind for each in read_findings(own / "findings.json")]
    first = (own / "report.html").read_text()
    assert re.search(r"40\.0 points below backprop \(bp8\)", first)
    assert CliRunner().invoke(cli, ["report", str(own), "--format", "html"], catch_exceptions=False).exit_code == 0
    assert (own / "report.html").read_text() == first


def test_one_run_is_held_against_another(tmp_path):
    runs = [str(write_run(tmp_path / name, LIGHT)) for name in "ab"]
    result = CliRunner().invoke(cli, ["report", *runs, "--against", runs[0]])
    assert "joint report" in str(result.exception)


@pytest.mark.parametrize("row", [{"name": 3}, [], "bp", {"name": "x", "rule": "bp", "accuracy": "high", "on": "test"}])
def test_a_damaged_reference_is_named(tmp_path, row):
    run = write_run(tmp_path / "r", LIGHT, findings=[finding()])
    text = (run / "findings.json").read_text()
    content = json.loads(text) | {"reference": row}
    (run / "findings.json").write_text(json.dumps(content))
    with pytest.raises(Exception, match=r"reference: .*`wtdiag analyze .*` writes it again"):
        load(run)
