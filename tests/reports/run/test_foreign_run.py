"""Reports and findings on networks that other code trained: nothing in them speaks of things that are not there."""

import numpy as np
import pytest

from wtdiag import analyze, compare, diagnose, open_run, record
from wtdiag.diagnostics.analysis.analyze import write_analysis
from wtdiag.diagnostics.findings.finding import write_findings
from wtdiag.probes.errors import InputError
from wtdiag.reports.document import html
from wtdiag.reports.run.facts import facts
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load
from wtdiag.reports.run.summary import glance
from wtdiag.workflow import against_each

NAMES = {"first": (6, 4), "second": (5, 6), "last": (3, 5)}


def errors(weights, back, x, target):
    hidden = [x]
    for w in weights[:-1]:
        hidden.append(np.maximum(hidden[-1] @ w.T, 0))
    deltas = [hidden[-1] @ weights[-1].T - target]
    for h, b in zip(hidden[:0:-1], back[:0:-1], strict=True):
        deltas.insert(0, (deltas[0] @ b) * (h > 0))
    return hidden, deltas


def train(path, *, with_signals=False, first=1, rule="fa", seed=0, **more):
    """Train a network of three layers by feedback alignment in NumPy, and record all layers from ``first`` on."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) / shape[1] ** 0.5 for shape in NAMES.values()]
    back = weights if rule == "bp" else [rng.normal(size=w.shape) / w.shape[1] ** 0.5 for w in weights]
    x = rng.normal(size=(40, 4))
    target = x @ rng.normal(size=(4, 3))
    for step in range(41):
        hidden, deltas = errors(weights, back, x, target)
        if step % 8 == 0:
            exact = errors(weights, weights, x, target)[1]
            of = zip(NAMES, hidden, deltas, exact, strict=True)
            given = {name: {"inputs": h, "delta": d, "delta_exact": e} for name, h, d, e in list(of)[first:]}
            pairs = dict(list(zip(NAMES, zip(weights, back, strict=True), strict=True))[first:])
            config = {"settings": {"seed": seed}} | ({"rule": {"name": rule}} if rule else {})
            loss = (deltas[-1] ** 2).mean()
            record(path, step, pairs, signals=given if with_signals else None, loss=loss, config=config, **more)
        for i, (h, d) in enumerate(zip(hidden, deltas, strict=True)):
            weights[i] = weights[i] - 0.05 * d.T @ h / len(x)
        back = weights if rule == "bp" else back
    return weights, back, (x, target)


def analysed(path):
    """Analyse a run without drawing a report, which takes seconds."""
    analysis = analyze(path)
    write_analysis(analysis, path / "analysis.nc")
    write_findings(diagnose(path, analysis), path / "findings.json")
    return analysis


def test_a_run_of_weights_is_reported_without_words_on_signals_rules_and_tests(tmp_path):
    train(tmp_path / "mine", rule="")
    analysis = analysed(tmp_path / "mine")
    assert not [name for name in analysis.data_vars if "error" in name or "step_size" in name or "attribution" in name]
    report = single(load(tmp_path / "mine"))
    page = html.render(report)
    for absent in ("unknown", "test set", "Test accuracy", "accuracy (", "step-size number S:", "send no error on",
                   "predicted and observed", "error angle", "wtdiag train", "--rule", "transport_free"):  # fmt: skip
        assert absent not in page, absent
    assert report.verdict.endswith(" from the forward weights.")
    assert " Feedback on average " in f" {report.verdict}"
    assert "Size of the feedback" in page
    assert "Loss of this run over training steps, on the training batch of each logged step." in page


def test_recorded_signals_are_measured_by_the_same_commands(tmp_path):
    weights, back, (x, target) = train(tmp_path / "mine", with_signals=True)
    analysis = analysed(tmp_path / "mine")
    now = analysis.isel(step=-1)
    assert now.error_angle.sel(layer="last").item() == pytest.approx(0, abs=1e-4)
    assert 0 < now.error_angle.sel(layer="second").item() < 90
    first = analysis.isel(step=0)
    rng = np.random.default_rng(0)
    begun = [rng.normal(size=shape) / shape[1] ** 0.5 for shape in NAMES.values()]
    feedback = [rng.normal(size=w.shape) / w.shape[1] ** 0.5 for w in begun]
    hidden, deltas = errors(begun, feedback, x, target)
    exact = errors(begun, begun, x, target)[1]

    def angle(a, b):
        return np.degrees(np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)))

    second = first.sel(layer="second")
    assert second.error_angle.item() == pytest.approx(angle(deltas[1], exact[1]), rel=1e-6)
    assert second.error_angle_local.item() == pytest.approx(
        angle(deltas[1] @ feedback[1], deltas[1] @ begun[1]), rel=1e-6
    )
    assert second.error_angle_total.item() == pytest.approx(
        angle(deltas[1] @ feedback[1], exact[1] @ begun[1]), rel=1e-6
    )
    gradients = deltas[1].T @ hidden[1], exact[1].T @ hidden[1]
    assert second.weight_gradient_angle.item() == pytest.approx(angle(*gradients), rel=1e-6)
    source = load(tmp_path / "mine")
    assert "error angle, first recorded layer" in [number.label for number in glance(facts(source)).numbers]
    again = analyze(tmp_path / "mine", signals=lambda step: {})
    assert "error_angle" not in again
    assert weights[0].shape == back[0].shape


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        (lambda step: {"third": {}}, "signals: layer: 'third' is not known"),
        (lambda step: 1 / 0, "signals: failed at step 40 (ZeroDivisionError: division by zero)"),
        (lambda step: [], "signals: expected arrays by layer at step 40, got list"),
        (lambda step: {"last": {"delta": np.ones((4, 9))}}, "signal delta has shape (4, 9); expected (examples, 3)"),
        (
            lambda step: {"last": {"delta": np.ones((4, 3)), "inputs": np.ones((5, 5))}},
            "last: signals delta (4, 3) and inputs (5, 5) count different examples",
        ),
    ],
)
def test_signals_that_do_not_fit_are_refused_in_one_line(tmp_path, signals, said):
    train(tmp_path / "mine")
    with pytest.raises(InputError) as caught:
        analyze(tmp_path / "mine", signals=signals)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recorded_runs_are_compared_with_one_by_backprop(tmp_path):
    for rule in ("bp", "fa"):
        train(tmp_path / rule, rule=rule, test_accuracy=0.9 if rule == "bp" else 0.7)
    table = compare(tmp_path)
    row = table[table.measure == "test_accuracy"].iloc[0]
    assert (row.rule, row.reference) == ("fa", "bp")
    assert row.difference == pytest.approx(-0.2)
    (reference,) = against_each([open_run(tmp_path / rule) for rule in ("bp", "fa")], None).values()
    assert (reference.rule, reference.accuracy, reference.on) == ("bp", 0.9, "test")
    with pytest.raises(InputError, match=r"^against: .* is the run itself; expected another one$"):
        against_each([open_run(tmp_path / "bp")], tmp_path / "bp")
