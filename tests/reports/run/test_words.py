"""What a page on one run says of itself: its title, its symbols, its seed, its command and its methods."""

import numpy as np
import pytest

from tests.reports.runs import analysis, write_run
from wtdiag.probes.records.config import DeclaredSettings
from wtdiag.reports.document import html
from wtdiag.reports.document.content import Code, Figure, Text
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load

SETTINGS = {"model": "mlp", "data": "digits", "depth": 6, "seed": 3, "lr": 0.05, "batch_norm": False}


def texts(report):
    return " ".join(block.text for part in report.sections for block in part.blocks if isinstance(block, Text))


def test_the_title_says_what_was_trained_and_how_it_came_out(tmp_path):
    source = load(write_run(tmp_path / "x", analysis(3, 4), settings=SETTINGS))
    said = single(source).title.replace("\N{NO-BREAK SPACE}", " ")
    assert said == f"ia, mlp of depth 6 on digits, seed 3: test accuracy 96.5 %, {source.date}"
    where = {"status": "diverged", "diverged": {"step": 7, "what": "loss is NaN"}}
    diverged = single(load(write_run(tmp_path / "y", analysis(3, 4), settings=SETTINGS, **where))).title
    assert ": diverged at step 7 (loss is NaN), " in diverged
    assert single(load(write_run(tmp_path / "z", analysis(3, 4), rule="", settings={}))).title.startswith("z: ")


def test_w_and_b_are_explained_and_one_seed_is_said_to_be_one(tmp_path):
    said = texts(single(load(write_run(tmp_path / "x", analysis(3, 4), settings=SETTINGS))))
    assert "feedback weights B, where backpropagation would use the transpose of W" in said
    assert "This is one run with one seed (3)" in said


def test_backprop_has_no_sections_on_feedback(tmp_path):
    report = single(load(write_run(tmp_path / "bp", analysis(3, 4, rule="bp"), rule="bp")))
    assert [part.title for part in report.sections] == [
        "Summary", "Accuracy and loss", "Spectra", "Settings", "Methods",
    ]  # fmt: skip
    assert "no B of its own" in texts(report)
    assert "°" not in report.verdict + texts(report)


def test_three_panels_share_a_row(tmp_path):
    report = single(load(write_run(tmp_path / "x", analysis(3, 4).drop_vars("sign_agreement"))))
    figures = {block.name: block for part in report.sections for block in part.blocks if isinstance(block, Figure)}
    assert [panel.get_figwidth() for panel in figures["layers-maps"].panels] == [2.2] * 3
    assert [panel.get_figwidth() for panel in figures["curves"].panels] == [3.35] * 4


def test_the_command_repeats_every_setting_whatever_the_version(tmp_path):
    path = write_run(tmp_path / "x", analysis(3, 4), settings=SETTINGS | {"device": "cpu"})
    (code,) = (each for part in single(load(path)).sections for each in part.blocks if isinstance(each, Code))
    words = code.text.replace(" \\\n", "").split()
    said = "wtdiag train --rule ia -c amp=0.04 -c null=0.01 -c decay=0.0025 --model mlp --depth 6 --no-batch-norm"
    assert words == f"{said} --data digits --seed 3 --lr 0.05".split()
    every = {name: value for name, value in vars(DeclaredSettings()).items() if value is not None}
    path = write_run(tmp_path / "y", analysis(3, 4), settings=every)
    (code,) = (each for part in single(load(path)).sections for each in part.blocks if isinstance(each, Code))
    lines = code.text.split("\n")
    assert len(lines) > 5
    assert all(len(line) <= 80 and line.split()[0].startswith(("wtdiag", "-")) for line in lines)


def test_options_and_commands_are_code_and_names_with_backticks_stay(tmp_path):
    data = analysis(names=["`fc1`", "fc2", "fc3"], snapshots=4)
    page = html.render(single(load(write_run(tmp_path / "x", data, settings=SETTINGS))))
    assert "<code>wtdiag compare</code>" in page
    assert "`wtdiag" not in page
    assert "`fc1`" in page


@pytest.mark.parametrize("name", ["bp0", "gone", "../bp0"])
def test_the_reference_is_drawn_if_it_lies_beside_the_run(tmp_path, name):
    from wtdiag.diagnostics.analysis.accuracy import Reference
    from wtdiag.diagnostics.findings.finding import write_findings

    write_run(tmp_path / "bp0", analysis(3, 4, rule="bp"), rule="bp", accuracy=0.99)
    own = write_run(tmp_path / "ia0", analysis(3, 4))
    write_findings([], own / "findings.json", Reference(name, "bp", 0.99, "test", ""))
    training = single(load(own)).sections[1].blocks[0]
    drawn = [line for line in training.panels[0].axes[0].lines if line.get_gid() == "reference"]
    assert len(drawn) == (name == "bp0")
    if drawn:
        assert np.asarray(drawn[0].get_ydata())[-1] == pytest.approx(99.0)
        assert "(bp)" in training.caption
