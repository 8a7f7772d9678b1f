"""What the report says of predicted and observed stability, of events, and of runs that differ by their seed."""

import numpy as np
import pytest

from tests.reports.runs import analysis, write_run
from wtdiag.reports.comparison.groups import average, gaps, groups, mean_angle
from wtdiag.reports.comparison.joint import joint
from wtdiag.reports.figures.axes import Event
from wtdiag.reports.figures.style import look
from wtdiag.reports.run.facts import facts
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load
from wtdiag.reports.run.stability_section import stability


def section(path):
    source = load(path)
    return stability(source, facts(source))


def test_stable_run(run):
    text, figure, gains, table = section(run).blocks
    data = load(run).analysis
    assert text.text.startswith(f"Predicted: stable. The largest S is {float(data.step_size_number.max()):.3f}, in fc")
    assert text.text.endswith("Observed: the run did not diverge.")
    assert figure.measures == ("step_size_number", "log_norm_ratio_sum")
    np.testing.assert_array_equal(figure.panels[1].axes[0].lines[0].get_ydata(), data.log_norm_ratio_sum)
    assert gains.measures == ("norm_ratio", "error_norm_ratio")
    drawn = {line.get_gid(): line.get_xdata() for line in gains.panels[0].axes[0].lines}
    np.testing.assert_array_equal(drawn["error_norm_ratio"], data.error_norm_ratio[-1])
    columns = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    largest = data.step_size_number.values.max(axis=0)
    assert [float(cell) for cell in columns["largest S"]] == pytest.approx(largest, rel=5e-3)
    assert [float(cell) for cell in columns["safe coefficients ×"]] == pytest.approx(1 / largest, rel=5e-3)
    assert "safe feedback lr" not in table.columns
    assert "The largest S is taken over all snapshots" in table.caption
    assert "With all coefficients of the rule multiplied by more than the safe factor" in table.caption
    assert "learning rate" not in table.caption
    assert "ran away" not in table.caption
    assert columns["angle"][2] == f"{data.weight_angle.values[-1, 2]:.1f}°"
    assert columns["predicted angle"][2] == f"{data.predicted_angle.values[-1, 2]:.1f}°"


def test_unstable_run(tmp_path):
    data = analysis(4, 8)
    data.step_size_number[:] = 0.5
    data.step_size_number[3:, 2] = 1.5
    data.step_size_number[5:, 1] = 1.1
    path = write_run(tmp_path / "r", data, status="diverged", diverged={"step": 900, "what": "B is inf"})
    said = section(path).blocks[0].text
    assert f"unstable from step {int(data.step[3])}, first in fc3; S passes 1 in 2 of 4 layers." in said
    lead = 900 - int(data.step[3])
    assert said.endswith(f"Observed: the run diverged at step 900, {lead} steps after the first warning.")


def test_a_rule_without_theory_has_no_words_on_stability(tmp_path):
    data = analysis(3)
    for name in ("step_size_number", "relaxation_time", "predicted_angle", "predicted_gain", "predicted_noise_angle"):
        data[name][:] = np.nan
    shown = section(write_run(tmp_path / "r", data))
    assert shown.title == "Size of the feedback and of the errors"
    figure, _, table = shown.blocks  # and no sentence on a stability that the rule does not have
    assert figure.measures == ("log_norm_ratio_sum",)
    assert [row[:2] for row in figure.data.rows] == [("log norm ratio sum", "all")]
    assert not {"largest S", "safe coefficients ×", "safe feedback lr", "relaxation time"} & set(table.columns)
    assert table.caption.endswith(f"by layer, at step {int(data.step[-1])}.")


@pytest.mark.parametrize(("largest", "meaning"), [(0.4, "Below 1 the feedback"), (2.5, "One step is")])
def test_adam_has_a_relative_step_in_place_of_the_step_size_number(largest, meaning, tmp_path):
    data = analysis(3)
    data["step_size_number"][:] = data["relaxation_time"][:] = np.nan
    data["relative_step"], data["travel_time"] = 0.01 + 0 * data.norm_ratio, 7 + 0 * data.norm_ratio
    data["relative_step"][2, 1] = largest
    data["relative_step"][2, 0] = 100.0  # of a layer that sends no error on
    data.coords["carries_error"] = "layer", [False, True, True]
    text, figure, _, table = section(write_run(tmp_path / "r", data)).blocks
    assert text.text.startswith("Predicted: Adam trains the feedback.")
    assert f"the largest step is {largest:#.3g}, in fc2 at step {int(data.step[2])}. {meaning}" in text.text
    assert text.text.endswith("Observed: the run did not diverge.")
    assert figure.measures == ("relative_step", "log_norm_ratio_sum")
    assert {"relative step", "travel time"} <= set(table.columns)
    assert "largest S" not in table.columns


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"feedback_optimizer": "muon"}, True),
        ({"optimizer": "muon"}, True),
        ({"optimizer": "muon", "feedback_optimizer": "adam"}, False),
    ],
)
def test_an_optimiser_without_theory_is_named(settings, says, tmp_path):
    data = analysis(3)
    data["step_size_number"][:] = data["relaxation_time"][:] = np.nan
    path = write_run(tmp_path / "r", data, settings=settings)
    metrics = path / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 1, "feedback_lr": 0.1}\n')
    said = [block.text for block in section(path).blocks if hasattr(block, "text")]
    assert any("Not known: how large the steps of Muon" in text for text in said) == says


def test_a_run_without_dynamics_has_no_such_section(light):
    assert section(light) is None


def test_events_are_the_metrics_and_the_divergence(tmp_path):
    diverged = {"step": 900, "what": "B is \x07 inf"}
    few = analysis(2)[["weight_angle"]]
    path = write_run(tmp_path / "r", few, events=[(340, "loss jumped")], status="diverged", diverged=diverged)
    source = load(path)
    assert source.events == (Event(340, "loss jumped"), Event(900, "diverged (B is \N{REPLACEMENT CHARACTER} inf)"))
    assert "events: loss jumped at step 340; diverged" in single(source).sections[1].blocks[0].caption


def seeded(folder, rule, layers, seed, accuracy, **coefficients):
    settings = {"model": "mlp", "data": "digits", "depth": layers, "seed": seed, "coefficients": coefficients}
    data = analysis(layers, 6, rule=rule, seed=seed)[["weight_angle", "error_angle"]]
    name = f"{rule}{layers}-{seed}{''.join(map(str, coefficients.values()))}"
    return load(write_run(folder / name, data, rule=rule, accuracy=accuracy, settings=settings))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two rules, two depths, two seeds; fa is 10 points below bp at depth 3 and 30 at depth 6."""
    folder = tmp_path_factory.mktemp("sweep")
    below = {("bp", 3): 0.0, ("bp", 6): 0.0, ("fa", 3): 0.1, ("fa", 6): 0.3}
    return [
        seeded(folder, rule, layers, seed, 0.95 - gap - 0.02 * seed)
        for (rule, layers), gap in below.items()
        for seed in (0, 1)
    ]


def test_runs_that_differ_by_their_seed_alone_belong_together(sweep):
    assert [len(group.runs) for group in groups(sweep)] == [2, 2, 2, 2]
    assert len({group.name for group in groups(sweep)}) == 4


@pytest.mark.parametrize(
    ("name", "together"), [("data_dir", True), ("snapshots", True), ("lr", False), ("feedback_lr", False)]
)
def test_where_runs_were_made_and_what_was_kept_sets_no_group_apart(tmp_path, name, together):
    data = analysis(3, 6, rule="fa")[["weight_angle"]]
    runs = [
        load(write_run(tmp_path / str(seed), data, rule="fa", settings={"seed": seed, name: f"{seed}"}))
        for seed in (0, 1)
    ]
    assert (len(groups(runs)) == 1) == together


def test_means_and_bands_are_those_of_the_seeds(sweep):
    group = groups(sweep)[2]
    (line,) = average(group, 2, mean_angle)
    both = np.stack([source.analysis.weight_angle.values[:, 1:].mean(axis=1) for source in group.runs])
    np.testing.assert_allclose(line.y, both.mean(axis=0))
    np.testing.assert_allclose(np.subtract(line.high, line.low), 2 * both.std(axis=0))
    assert line.gid == "run-2"


def test_gap_is_paired_by_depth_and_seed(sweep):
    assert list(gaps(sweep, "test").values()) == pytest.approx([np.nan] * 4 + [10, 10, 30, 30], nan_ok=True)
    assert np.isnan(list(gaps(sweep[4:], "test").values())).all()
    figure = next(block for block in joint(sweep).sections[0].blocks if getattr(block, "name", "") == "depth-gap")
    assert figure.data.rows == (("fa", "3", "10.0", "0.0"), ("fa", "6", "30.0", "0.0"))
    assert "fa is 30.0 points below backpropagation at 6 layers" in figure.alt


def test_one_rule_with_several_coefficients_is_drawn_as_several_methods(tmp_path):
    below = {("bp", None): 0.0, ("kp", 0.01): 0.1, ("kp", 0.2): 0.5}
    runs = [
        seeded(tmp_path, rule, layers, 0, 0.95 - gap, **({} if decay is None else {"decay": decay}))
        for (rule, decay), gap in below.items()
        for layers in (3, 6)
    ]
    found = dict.fromkeys((group.method, group.look) for group in groups(runs))
    assert [method for method, _ in found] == ["bp", "kp decay=0.01", "kp decay=0.2"]
    assert len({drawn for _, drawn in found}) == 3
    assert ("kp decay=0.01", look("kp")) in found
    figure = next(block for block in joint(runs).sections[0].blocks if getattr(block, "name", "") == "depth-gap")
    assert figure.data.rows == tuple(
        (f"kp decay={decay}", layers, gap, "0.0") for decay, gap in ((0.01, "10.0"), (0.2, "50.0")) for layers in "36"
    )


def test_differences_are_those_of_the_pairs(sweep):
    table = joint(sweep).sections[0].blocks[1]
    rows = {row[:3]: row[3:] for row in table.rows}
    runs, rules = "mlp, depth 6, digits", "fa – bp"
    assert rows[runs, rules, "test accuracy"] == (*["−30.0 points"] * 3, "2")
    assert (
        rows[f"{runs.replace('6', '3').split(',')[0]}, digits, depth 3 to 6", rules, "depth gap"][0] == "−20.0 points"
    )
