"""Findings, summaries and figures call the same angles chance."""

import numpy as np
import pytest

from tests.diagnostics.synthetic import metrics
from tests.reports.runs import analysis, write_run
from wtdiag.diagnostics.analysis.chance import DEVIATIONS, IN_WORDS
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.lines import null_bands
from wtdiag.reports.run.facts import facts
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load

SD = 2.0


@pytest.mark.parametrize("deviations", [0.0, 1.9, 2.1, 2.5, 2.99, 3.01, 3.5, 20.0])
def test_findings_summary_and_band_agree(tmp_path, deviations):
    data = analysis(2, 4, rule="fa")
    data["weight_angle"][:] = 90 - deviations * SD
    data["weight_angle_null_sd"] = "layer", np.full(2, SD)
    data = data.drop_vars(["error_angle_local", "predicted_angle"])
    run = load(write_run(tmp_path / "r", data, rule="fa"))
    found = "not-aligning" in [finding.kind for finding in diagnose(data, {}, metrics())]
    ((low, _),) = null_bands(data, "weight_angle")
    assert found == (facts(run).aligned == 0) == (data.weight_angle.values[-1, 1] >= low[-1]) == (deviations < 3)


def test_every_text_names_the_same_width(tmp_path):
    report = single(load(write_run(tmp_path / "r", analysis(3, 4))))
    said = [text for section in report.sections for block in section.blocks for text in [getattr(block, "caption", "")]]
    assert IN_WORDS == "three standard deviations"
    assert IN_WORDS in KINDS["not-aligning"].equation
    assert sum(IN_WORDS in text for text in said) == 2
    assert not any("two standard deviations" in text for text in said)
    key = sized.layer_curves(analysis(3, 4), "weight_angle", chance=True).axes[0].get_legend()
    assert [text.get_text() for text in key.get_texts()] == [f"chance ± {DEVIATIONS} sd"]


def test_feedback_that_sends_useful_errors_is_not_called_unaligned():
    data = analysis(2, 4, rule="fa")
    data["weight_angle"][:] = 89.0
    data["weight_angle_null_sd"] = "layer", np.full(2, SD)
    data["error_angle_local_null_sd"] = "layer", np.full(2, SD)
    for local, found in ((89.0, True), (70.0, False)):
        data["error_angle_local"][:] = local
        assert ("not-aligning" in [finding.kind for finding in diagnose(data, {}, metrics())]) == found
