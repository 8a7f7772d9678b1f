"""The page of a search: robustness, the best, and the map against its predicted boundaries."""

import re

import numpy as np
import pytest
import xarray as xr
from matplotlib.contour import QuadContourSet

from tests.reports.studied import EVIL, blocks, put, sweep
from wtdiag.diagnostics.comparison.robustness import reached
from wtdiag.diagnostics.findings.thresholds import limit
from wtdiag.probes.errors import InputError
from wtdiag.reports.document import html, pdf
from wtdiag.reports.document.content import Figure, Table, Text
from wtdiag.reports.figures.trial_map import GAIN, STEP, beyond, trial_map
from wtdiag.reports.publish import publish
from wtdiag.reports.study import robustness_section as robustness
from wtdiag.reports.study import sweep_page as page
from wtdiag.reports.study.boundaries import maps
from wtdiag.reports.study.shared import load, methods_of


def figure_named(found, name):
    return next(each for each in blocks(page.sections(found, methods_of(found)), Figure) if each.name == name)


def test_the_curve_is_the_share_of_configurations_that_reach_a_share_of_the_best():
    found = sweep()
    axes = figure_named(found, "robustness").panels[0].axes[0]
    accuracy, best = found["validation_accuracy"].values, float(found["validation_accuracy"].sel(rule="bp").max())
    lines = [line for line in axes.lines if line.get_gid()]
    assert len(lines) == len(accuracy) == 3
    for i, line in enumerate(lines):
        marks, shares = line.get_data()
        brute = [100 * np.mean(accuracy[i] >= mark / 100 * best - 1e-12) for mark in marks]
        np.testing.assert_allclose(shares, brute)
        assert line.get_gid() == f"run-{i}"


def test_the_verdict_gives_the_share_at_ninety_percent():
    found = sweep()
    share = float(reached(found, [0.9])["share"].sel(rule="ia")[0])
    assert f"ia {100 * share:.0f}\xa0%" in robustness.verdict(found)
    found["status"][0] = "failed"
    assert robustness.verdict(found) == "No configuration of bp has finished, so there is nothing to compare with."


def test_the_best_configuration_is_the_best_that_finished():
    found = sweep()
    found["validation_accuracy"][2, 5], found["status"][2, 5] = 0.99, "diverged"
    rows = {row[0]: row for row in robustness.best(found, methods_of(found)).rows}
    accuracy = found["validation_accuracy"].where(found["status"] == "finished").sel(rule="ia")
    at = int(accuracy.argmax("trial"))
    assert rows["ia"][1] == f"{100 * float(accuracy[at]):.1f}\xa0%"
    assert float(rows["ia"][2]) == pytest.approx(float(found["lr"][2, at]), rel=0.006)
    assert rows["bp"][3:] == ("–", "–")  # which has neither coefficient


def test_how_trials_ended_is_counted():
    found = sweep()
    table = robustness.ends(found, methods_of(found))
    ends = table.columns[1:-1]
    assert sorted(ends) == np.unique(found["status"]).tolist()
    statuses = {rule: found["status"].sel(rule=rule).values.tolist() for rule in found["rule"].values.tolist()}
    assert [row[:-1] for row in table.rows] == [
        (rule, *(str(each.count(end) or "–") for end in ends)) for rule, each in statuses.items()
    ]


def test_importance_has_a_mark_for_each_method_in_the_row_of_each_parameter():
    found = sweep()
    axes = figure_named(found, "importance").panels[0].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    means = found["importance"].mean("rule").sel(parameter=names).values
    assert (np.diff(means) < 0).all()  # the most important at the top
    for i, line in enumerate(axes.lines[:3]):
        np.testing.assert_array_equal(line.get_xdata(), found["importance"][i].sel(parameter=names))
        np.testing.assert_array_equal(np.round(line.get_ydata()), [0, 1, 2])
    del found["importance"]
    assert "importance" not in [each.name for each in blocks(page.sections(found, methods_of(found)), Figure)]


def test_the_best_so_far_is_that_of_the_trials_that_finished_by_then():
    found = sweep()
    lines = figure_named(found, "robustness").panels[1].axes[0].lines
    for line, rule in zip(lines, ["bp", "wm-reg", "ia"], strict=True):
        trials = found.sel(rule=rule)
        accuracy = 100 * trials["validation_accuracy"].where(trials["status"] == "finished").values
        for x, y in zip(*line.get_data(), strict=True):
            seen = accuracy[: int(x)][np.isfinite(accuracy[: int(x)])]
            assert y == seen.max() if len(seen) else np.isnan(y)
        assert len(line.get_xdata()) == len(accuracy)


def test_a_slice_has_the_trials_that_finished_of_the_methods_with_the_parameter():
    found = sweep()
    panels = figure_named(found, "slices").panels
    best = 100 * float(found["validation_accuracy"].sel(rule="bp").max())
    assert [panel.axes[0].get_xlabel() for panel in panels[:-1]] == ["lr", "amp", "decay"]
    for panel, rules in zip(panels, (["bp", "wm-reg", "ia"], ["wm-reg", "ia"], ["wm-reg", "ia"]), strict=False):
        (axes,) = panel.axes
        *lines, level = axes.lines
        assert [line.get_gid() for line in lines] == [f"run-{['bp', 'wm-reg', 'ia'].index(rule)}" for rule in rules]
        np.testing.assert_allclose(level.get_ydata(), best)
        for line, rule in zip(lines, rules, strict=True):
            trials = found.sel(rule=rule)
            finished = (trials["status"] == "finished").values
            np.testing.assert_array_equal(line.get_xdata(), trials[axes.get_xlabel()].values[finished])
            np.testing.assert_allclose(line.get_ydata(), 100 * trials["validation_accuracy"].values[finished])


def test_a_slice_over_choices_has_a_place_for_each():
    found = sweep()
    words = np.where(found["lr"].values > 0.03, "high", "low").astype(object)
    words[0] = ""  # which bp lacks
    found["lr"] = found["lr"].dims, words
    (axes,) = figure_named(found, "slices").panels[0].axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert sorted(names) == ["high", "low"]
    finished = (found.sel(rule="ia")["status"] == "finished").values
    assert [names[int(x)] for x in axes.lines[1].get_xdata()] == words[2][finished].tolist()
    assert len(axes.lines) == 3


@pytest.mark.parametrize("log", [True, False])
def test_what_lies_beyond_is_told_by_the_map(log):
    rng = np.random.default_rng(0)
    places = np.geomspace(0.1, 10, 41)
    x, y = np.meshgrid(places, places, indexing="ij")
    scale = np.log if log else np.asarray
    number = np.exp(scale(y) - scale(x) / 2) if log else y / 2 + x / 4  # exact between the points of the map
    trials = {name: ("trial", 10 ** rng.uniform(-1, 1, 300)) for name in ("amp", "decay")}
    one = xr.Dataset(
        trials | {STEP: (("map_x", "map_y"), np.log(number) + 1 if log else number)},
        {"map_x": places, "map_y": places},
    )
    amp, decay = (one[name].values for name in ("amp", "decay"))
    exact = np.log(decay) - np.log(amp) / 2 + 1 > 1 if log else decay / 2 + amp / 4 > 1
    assert 0.2 < exact.mean() < 0.9
    np.testing.assert_array_equal(beyond(one, x="amp", y="decay", log=(log, log)), exact)
    gain = one.rename({STEP: GAIN})
    gain[GAIN] = gain[GAIN] - 1 + limit("gain_sum")
    np.testing.assert_array_equal(beyond(gain, x="amp", y="decay", log=(log, log)), exact)


def test_trials_outside_the_map_and_parts_without_a_prediction():
    places = np.array([1.0, 2.0])
    one = xr.Dataset(
        {"amp": ("trial", [0.5, 5.0, 1.0]), "decay": ("trial", [0.5, 5.0, 2.0])}
        | {STEP: (("map_x", "map_y"), [[0.5, np.nan], [0.5, np.inf]])},
        {"map_x": places, "map_y": places},
    )
    np.testing.assert_array_equal(beyond(one, x="amp", y="decay", log=(False, False)), [False, True, False])


def test_the_boundary_is_drawn_where_the_step_size_number_is_one():
    found = sweep().assign(relative=lambda each: each["validation_accuracy"].assign_attrs(long_name="accuracy"))
    axes = trial_map(found.sel(rule="ia"), x="amp", y="decay", log=(True, True), title="ia")
    (line,) = (each for each in axes.collections if isinstance(each, QuadContourSet) and not each.filled)
    np.testing.assert_allclose(line.get_paths()[0].vertices[:, 1], 1.0)
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert labels == ["S = 1: feedback unstable beyond", "diverged", "pruned"]


def test_the_sentence_counts_what_diverged_beyond_and_keeps_the_pruned_apart():
    found = sweep()
    found["status"][1, 1], found["status"][1, 2] = "finished", "diverged"
    found["decay"][1, 1], found["decay"][1, 2] = 5.0, 0.01
    drawn = list(maps(found, methods_of(found), ""))
    assert isinstance(drawn[0], Text)
    status, decay = found["status"].values[1:], found["decay"].values[1:]
    said = [int(number) for number in re.findall(r"\d+", drawn[0].text)]
    outside = decay > 1  # as the map has it, at its own points
    counted = {end: (int(((status == end) & outside).sum()), int((status == end).sum())) for end in np.unique(status)}
    assert said == [*counted["diverged"], *counted["finished"], *counted["pruned"]]
    assert [panel.axes[0].get_title(loc="left") for panel in drawn[1].panels] == ["wm-reg", "ia"]
    calm = found.assign(status=found["status"].where(found["status"] == "finished", "failed"))
    assert next(maps(calm, methods_of(calm), "")).text.startswith("No trial diverged; ")
    assert drawn[1].data.rows[0][0] == "wm-reg"


@pytest.mark.parametrize("lack", ["map", "predicted", "one point", "order", "choices", "space"])
def test_without_a_map_of_numbers_there_is_no_map(lack):
    found = sweep()
    if lack == "map":
        del found.attrs["map"]
    elif lack == "predicted":
        found = found.drop_vars([STEP, GAIN])
    elif lack == "one point":
        found = found.isel(map_x=[0])
    elif lack == "order":
        found = found.isel(map_x=slice(None, None, -1))
    elif lack == "choices":
        found["amp"] = found["amp"].astype(str).astype(object)
    else:
        found.attrs["space"] = "[]"
    assert list(maps(found, methods_of(found), "")) == []
    assert html.render(page.Report("sweep", "", page.sections(found, methods_of(found))))


def test_a_search_without_its_reference_is_still_shown():
    found = sweep().isel(rule=[1, 2])
    sections = page.sections(found, methods_of(found))
    assert "robustness" not in [figure.name for figure in blocks(sections, Figure)]
    assert "stability-map" in [figure.name for figure in blocks(sections, Figure)]


def test_many_maps_are_spread_over_pages():
    rules = ("bp", "fa", "usf", "kp", "wm", "ia", "sa", "aa")
    found = sweep(rules, 10)
    figures = [each for each in maps(found, methods_of(found), "") if isinstance(each, Figure)]
    assert [len(figure.panels) for figure in figures] == [4, 3]
    assert len({figure.name for figure in figures}) == 2


def test_both_pages_are_written_with_texts_as_texts(tmp_path):
    found = sweep(EVIL[:3], 8)
    found.attrs["sampler"], found.attrs["title"] = "<b>#panic(1)", "<i>$"
    folder = put(found, tmp_path)
    assert publish(page.report(folder), folder, "sweep") == [tmp_path / "sweep.html", tmp_path / "sweep.pdf"]
    text = (tmp_path / "sweep.html").read_text()
    assert "<script>alert" not in text
    assert "<b>#panic" not in text
    assert "&lt;b&gt;#panic(1)" in text
    assert (tmp_path / "sweep.pdf").read_bytes().startswith(b"%PDF-")


def test_what_was_searched_is_told():
    section = page.done(sweep())
    searched, settings = (block for block in section.blocks if isinstance(block, Table))
    assert searched.rows[0] == ("lr", "0.001 to 10, logarithmic")
    assert ("coefficients.amp", "0.04") in settings.rows
    found = sweep()
    found.attrs["space"] = '{"lr": {"choices": [0.1, "a"]}, "amp": {"choices": 3}, "decay": 1}'
    assert page.done(found).blocks[1].rows == (("lr", "0.1, a"), ("amp", "None to None, linear"))


def test_only_a_sweep_is_taken(tmp_path):
    with pytest.raises(InputError, match="there are no results"):
        page.report(tmp_path)
    put(sweep(), tmp_path)
    with pytest.raises(InputError, match="expected those of a 'transfer'"):
        load(tmp_path, "transfer")


def test_the_pdf_is_the_same_each_time():
    found = sweep(trials=8)
    report = page.Report("sweep", "", page.sections(found, methods_of(found)))
    assert pdf.render(report) == pdf.render(report)
