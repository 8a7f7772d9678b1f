"""What counts as a divergence, when it began, and what it followed from."""

import numpy as np
import pandas as pd
import pytest

from tests.diagnostics.findings.planted_runs import DIVERGED, run_of
from tests.diagnostics.synthetic import CONFIG, LAYERS, healthy, metrics, plant
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.diagnose import diagnose


def test_the_cause_of_a_divergence_comes_before_it():
    analysis, _, log = run_of("step-too-large")
    log.loc[log.step > 16, "loss"] = np.nan
    first, second, *_ = diagnose(analysis, DIVERGED, log)
    assert (first.kind, second.kind) == ("step-too-large", "divergence")
    assert "7 steps before it broke" in first.summary
    assert first.advice[0].startswith("Lower the feedback learning rate from 1 to 0.16: the step-size number of fc4, ")
    assert "It follows from step-too-large in fc4." in second.summary


@pytest.mark.parametrize(
    ("diverged", "layer"),
    [
        ({"step": 17, "what": "norm of the weight of fc2"}, "fc2"),
        ({"step": 17, "what": "norm of the weight of elsewhere"}, None),
        ({"step": 17, "what": "loss"}, None),
        ({"step": "soon"}, None),
        ({"step": 10**400, "what": "loss"}, None),
        (None, None),
    ],
)
def test_divergence_as_the_run_tells_it(diverged, layer):
    finding = diagnose(healthy(), {"status": "diverged", "diverged": diverged}, metrics())[0]
    assert (finding.kind, finding.layer) == ("divergence", layer)


@pytest.mark.parametrize(
    ("broken", "layer"),
    [
        ({"feedback_norm": ["fc4"], "forward_norm": ["fc1", "fc2", "fc3"]}, "fc4"),
        ({"feedback_norm": ["fc3", "fc4"], "forward_norm": ["fc3"]}, "fc4"),
        ({"feedback_norm": [], "forward_norm": ["fc3", "fc5", "fc6"]}, "fc3"),
        ({"feedback_norm": LAYERS, "forward_norm": LAYERS}, None),
    ],
)
def test_divergence_as_the_snapshots_show_it(broken, layer):
    analysis = healthy()
    for measure, layers in broken.items():
        for name in layers:
            plant(analysis, name, since=5, **{measure: np.nan})
    finding = next(each for each in diagnose(analysis, CONFIG, metrics()) if each.kind == "divergence")
    assert (finding.layer, finding.first_step) == (layer, 80)


def test_divergence_as_the_metrics_show_it():
    log = metrics()
    log.loc[100:, "loss"] = np.inf
    finding = diagnose(healthy(), {}, log)[0]
    assert (finding.kind, finding.layer, finding.evidence[0].step) == ("divergence", None, 101)


def risen(factor, since=150):
    """A log whose loss is so many times its first value from a step on."""
    log = metrics()
    log.loc[log.step >= since, "loss"] = factor * log.loss.iloc[0]
    return log.assign(lr=np.linspace(0, 40.0, len(log)))


def test_a_loss_far_above_its_first_value_is_a_divergence():
    assert diagnose(healthy(), CONFIG, risen(9.9))[0].kind == "nothing-wrong"
    finding = diagnose(healthy(), CONFIG, risen(10.1))[0]
    assert (finding.kind, finding.layer, finding.severity, finding.first_step) == ("divergence", None, "high", 80)
    assert "10.1 times its first value; it has been above 10 times that value since step 150." in finding.summary
    first = metrics().loss.iloc[0]
    assert (finding.evidence[0].value, finding.evidence[0].threshold) == pytest.approx((10.1 * first, 10 * first))


def test_a_loss_that_came_down_again_or_rose_in_the_last_two_lines_alone_is_none():
    log = risen(50.0)
    log.loc[log.index[-1], "loss"] = 1.0
    assert diagnose(healthy(), CONFIG, log)[0].kind == "nothing-wrong"
    assert diagnose(healthy(), CONFIG, risen(50.0, since=229))[0].kind == "nothing-wrong"
    assert diagnose(healthy(), CONFIG, risen(50.0, since=228))[0].kind == "divergence"
    negative = metrics().assign(loss=np.linspace(-1, -5, 230))  # all of them above ten times the first
    assert diagnose(healthy(), CONFIG, negative)[0].kind == "nothing-wrong"


def test_the_weights_that_grew_with_the_loss_are_named_before_what_follows():
    analysis = plant(plant(healthy(), "fc5", since=6, forward_norm=8e6, norm_ratio=1e-6), "fc2", forward_norm=80.0)
    plant(analysis, "fc3", forward_norm=8e9)  # to whose size the loss is blind
    for layer in ("fc2", "fc5", "fc6"):
        plant(analysis, layer, since=0, radial_cosine=0.2)
    first, second, *others = diagnose(analysis, CONFIG, risen(1e6, since=151))
    assert (first.kind, first.layer, first.first_step) == ("divergence", "fc5", 150)
    assert "the weights of fc5 have grown by a factor of 1e+06." in first.summary
    assert first.advice[0].startswith("Lower the learning rate of the forward weights from 40 to 4.")
    shrunk = next(each for each in (second, *others) if each.kind == "feedback-too-small")
    assert "It follows from divergence in fc5." in shrunk.summary


def test_a_norm_ratio_says_whether_weights_grew_or_feedback_shrank():
    grown = plant(healthy(), "fc4", forward_norm=800.0, norm_ratio=0.01)
    grown["radial_cosine"][:] = 0.2
    finding = diagnose(grown, CONFIG, metrics())[0]
    assert (finding.kind, finding.layer, finding.severity) == ("feedback-too-small", "fc4", "medium")
    assert "W has grown by a factor of 100, while B has not shrunk" in finding.summary
    assert "Lower the learning rate of the forward weights" in finding.advice[0]
    analysis = plant(healthy(), "fc4", norm_ratio=0.01)
    analysis["feedback_norm"][3:, 3] *= 0.01
    shrunk = diagnose(analysis, CONFIG, metrics(2.2))[0]
    assert (shrunk.kind, shrunk.severity) == ("feedback-too-small", "high")
    assert diagnose(analysis, CONFIG, metrics())[0].severity == "medium"  # the network learned all the same
    assert "B has shrunk to 0.01" in shrunk.summary
    assert not any("learning rate of the forward weights" in text for text in shrunk.advice)
    analysis = plant(healthy(), "fc4", since=0, norm_ratio=0.1)
    analysis["feedback_norm"][:, 3] *= 0.1
    small = diagnose(analysis, CONFIG, metrics(2.2))[0]
    assert (small.kind, small.severity) == ("feedback-too-small", "high")
    assert "grown" not in small.summary
    assert "shrunk" not in small.summary


def test_a_line_of_metrics_without_a_loss_is_no_divergence():
    log = pd.concat([metrics(), pd.DataFrame({"step": [40, 230], "event": ["loss", "evaluated"]})])
    assert diagnose(healthy(), CONFIG, log)[0].kind == "nothing-wrong"


@pytest.mark.parametrize(("accuracy", "kind"), [(0.88, "nothing-wrong"), (0.1, "divergence")])
def test_a_network_that_is_right_has_not_diverged_however_large_its_loss(accuracy, kind):
    log = metrics()
    log["loss"] = np.where(log.step > 100, 50.0, log.loss)
    log["accuracy"] = accuracy
    config = CONFIG | {"network": {"classes": 10}}
    assert diagnose(healthy(), config, log)[0].kind == kind
    assert np.isnan(View(healthy(), config, log).collapse) == (kind == "nothing-wrong")
