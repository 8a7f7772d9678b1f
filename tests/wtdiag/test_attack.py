"""How a run's accuracy falls under attacks: the measure, its file, its section of the report and its command."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

import wtdiag
from tests.reports.runs import analysis, write_run
from wtdiag.cli import cli
from wtdiag.diagnostics.analysis.attacked import ATTACKS, FILE, read_attacked, write_attacked
from wtdiag.diagnostics.analysis.owed import Arm, Baseline, write_baseline
from wtdiag.probes.errors import InputError
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load

FEW = {"strengths": (0.2, 0.05, 0.2), "widths": (1.0,), "pgd_steps": 3, "tested": 150, "device": "cpu"}


def trained(path, **settings):
    made = wtdiag.Settings(**{"rule": "fa", "depth": 3, "epochs": 3, "device": "cpu"} | settings)
    for _ in wtdiag.Training(made, path):
        pass
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("attack") / "run")


@pytest.fixture(scope="module")
def found(run):
    return wtdiag.attack(run, **FEW)


def test_only_the_true_gradient_breaks_a_network_whose_feedback_is_random(found):
    assert list(dict.fromkeys(each.attack for each in found.attempts)) == list(ATTACKS)
    last = {attack: found.of(attack)[-1] for attack in ATTACKS}
    assert [each.strength for each in found.of("pgd-true")] == [0.05, 0.2]
    assert last["pgd-true"].accuracy <= last["fgsm-true"].accuracy < last["none"].accuracy - 0.4
    assert last["pgd-rule"].accuracy > last["pgd-true"].accuracy + 0.4
    assert last["noise"].accuracy > last["fgsm-true"].accuracy + 0.3
    assert all(each.low <= each.accuracy <= each.high for each in found.attempts)
    assert (found.tested, found.pgd_steps) == (150, 3)


def test_the_same_attack_has_the_same_result_and_is_kept(run, found):
    assert wtdiag.attack(run, **FEW) == found == read_attacked(run)


def test_backprop_has_no_other_signal_than_the_gradient(tmp_path):
    counts = []
    path = trained(tmp_path / "bp", rule="bp", epochs=0.1, data="rows", model="lstm", depth=1, width=8)
    found = wtdiag.attack(path, **FEW, done=lambda done, of: counts.append((done, of)))
    assert {each.attack for each in found.attempts} == {"none", "fgsm-true", "pgd-true", "noise"}
    assert counts == [(n, 7) for n in range(1, 8)]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("strengths", (0.1, 1.5), r"expected numbers above 0 and up to 1, got 1\.5"),
        ("strengths", (0.0,), "expected numbers above 0"),
        ("strengths", (float("nan"),), "expected numbers above 0"),
        ("widths", (-1.0,), "expected numbers above 0 and up to 100"),
        ("pgd_steps", 0, "expected at least 1, got 0"),
        ("tested", 3, "expected at least 100, got 3"),
    ],
)
def test_numbers_out_of_range_are_refused(run, name, value, why):
    with pytest.raises(InputError, match=f"^{name}: {why}"):
        wtdiag.attack(run, **FEW | {name: value})


def test_a_run_of_another_loop_is_refused(tmp_path):
    wtdiag.record(tmp_path / "mine", 0, {"fc": (np.ones((2, 2)), np.ones((2, 2)))})
    with pytest.raises(InputError, match="was not made by `wtdiag train`"):
        wtdiag.attack(tmp_path / "mine")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "",
        lambda content: [],
        lambda content: {**content, "attempts": []},
        lambda content: {**content, "attempts": [{"attack": "none"}]},
        lambda content: {**content, "attempts": [content["attempts"][0] | {"accuracy": 1e9}]},
        lambda content: {**content, "attempts": [content["attempts"][0] | {"attack": "<b>"}]},
        lambda content: {**content, "attempts": [content["attempts"][0] | {"strength": None}]},
        lambda content: {**content, "attempts": [content["attempts"][0] | {"strength": 1e7}]},
        lambda content: {**content, "step": None},
    ],
)
def test_a_damaged_file_is_named(found, tmp_path, damage):
    content = json.loads(write_attacked(found, tmp_path).read_text())
    assert read_attacked(tmp_path) == found
    (tmp_path / FILE).write_text(json.dumps(damage(content)))
    with pytest.raises(InputError, match=rf"{FILE}: .*; `wtdiag attack {tmp_path}` writes it again$"):
        read_attacked(tmp_path)


def test_the_command_shows_what_it_writes(run):
    words = ["attack", str(run), "--strength", "0.1", "--blur", "1", "--pgd-steps", "2", "--tested", "100"]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:8]] == list(ATTACKS)
    assert all(len(line) <= 80 for line in lines[:-1])
    assert lines[-1].endswith(FILE)


def test_a_report_shows_the_checks_that_were_made(found, tmp_path):
    path = write_run(tmp_path / "ia6", analysis()[["weight_angle", "weight_angle_null", "weight_angle_null_sd"]])
    without = {section.title for section in single(load(path)).sections}
    arm = Arm(0.5, 0.25, 0.75, -0.125, -0.25, 0.0625)
    write_baseline(Baseline(3, 2, 1, 300, 200, {"learned": arm, "frozen": arm}, {"<fc1>": {"removed": arm}}), path)
    write_attacked(found, path)
    report = single(load(path))
    shown = {section.title: section for section in report.sections}
    assert shown.keys() - without == {"What the lower layers earned", "Robustness"}
    _, table, blocks = shown["What the lower layers earned"].blocks
    assert blocks.rows[0][0] == "<fc1>: removed"
    assert table.rows[1] == ("frozen", "50.0\N{NO-BREAK SPACE}%", "25.0 to 75.0", "−12.5", "−25.0 to 6.2")
    (figure,) = shown["Robustness"].blocks
    assert len(figure.data.rows) == len(found.attempts)
    assert "Dashed lines (rule) follow the signal that the feedback sends" in figure.caption
    alone = dataclasses.replace(found, attempts=tuple(each for each in found.attempts if "rule" not in each.attack))
    write_attacked(alone, path)
    (figure,) = next(section for section in single(load(path)).sections if section.title == "Robustness").blocks
    assert "Dashed" not in figure.caption
