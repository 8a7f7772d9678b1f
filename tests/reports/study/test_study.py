"""The page of a study: its numbers against brute force, its claims, what it does with bad cells and bad texts."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pypdf
import pytest

from tests.reports.runs import analysis, write_run
from tests.reports.studied import EVIL, blocks, ended, grid, put, sweep, transfer
from wtdiag.diagnostics.claims import VERDICTS, Result, decide, write_claims
from wtdiag.diagnostics.comparison.intervals import of_mean
from wtdiag.diagnostics.comparison.results import gather
from wtdiag.probes.errors import InputError
from wtdiag.reports.document import html, pdf
from wtdiag.reports.document.content import Code, Figure, Numbers, Table, Terms, Text
from wtdiag.reports.publish import publish
from wtdiag.reports.study import claims_section
from wtdiag.reports.study import study_page as study
from wtdiag.reports.study.factors import over_factors, ranking
from wtdiag.reports.study.levels import levels_table, prepared
from wtdiag.reports.study.shared import load, methods_of


def drawn(panel):
    """By gid the points of a panel's lines."""
    return {line.get_gid(): np.asarray(line.get_data(), dtype=float) for line in panel.axes[0].lines if line.get_gid()}


def test_the_table_of_levels_holds_means_and_paired_gaps():
    found = grid(depth=(2, 8))
    ended(found, "failed", rule="bp", depth=8, seed=1)
    ended(found, "diverged", "loss not finite at step 57", rule="fa", depth=2, seed=3)
    table = levels_table(prepared(found), methods_of(found))
    rows = {(row[0], row[1]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    accuracy = found["test_accuracy"]
    for rule in ("fa", "ia"):
        for depth in (2, 8):
            own = accuracy.sel(rule=rule, depth=depth).values
            gaps = 100 * (accuracy.sel(rule="bp", depth=depth).values - own)
            row = rows[rule, str(depth)]
            assert row["test accuracy (%)"] == f"{100 * own.mean():.1f}"
            assert row["gap to bp (points)"] == f"{np.nanmean(gaps):.1f}"
    assert rows["ia", "8"]["seeds"] == "5"
    assert rows["fa", "2"]["seeds"] == "5 (1 diverged)"  # and counted at chance, as the results have it
    assert rows["bp", "8"]["seeds"] == "4 (1 missing)"
    low, high = of_mean(100 * accuracy.sel(rule="ia", depth=2).values)
    assert f"{low:.1f} to {high:.1f}" in next(row for row in table.rows if row[:2] == ("ia", "2"))


def test_accuracy_and_gap_are_drawn_over_each_factor_with_their_intervals():
    found = grid(depth=(2, 8, 32))
    figure, angles = over_factors(prepared(found), methods_of(found))
    accuracy, gap = map(drawn, figure.panels)
    values = 100 * found["test_accuracy"]
    for i, rule in enumerate(found["rule"].values):
        np.testing.assert_allclose(accuracy[f"run-{i}"], [[2, 8, 32], values.sel(rule=rule).mean("seed")])
    paired = values.sel(rule="bp") - values.sel(rule="ia")
    np.testing.assert_allclose(gap["run-2"], [[2, 8, 32], paired.mean("seed")])
    assert "run-0" not in gap  # backpropagation is what it is a gap to
    band = figure.panels[1].axes[0].collections[1].get_paths()[0].vertices
    for depth in (2, 8, 32):
        edges = band[band[:, 0] == depth, 1]
        np.testing.assert_allclose([edges.min(), edges.max()], of_mean(paired.sel(depth=depth).values))
    assert set(drawn(angles.panels[0])) == {"run-1", "run-2"}  # of backpropagation they are zero
    first, last = (float(paired.sel(depth=depth).mean()) for depth in (2, 32))
    assert f"ia {first:.1f} to {last:.1f} points" in figure.alt
    assert figure.panels[0].axes[0].get_xscale() == "log"


def test_levels_with_names_stand_side_by_side_in_their_order():
    found = grid(noise=("none", "weak", "strong"))
    figure, _ = over_factors(prepared(found), methods_of(found))
    axes = figure.panels[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "weak", "strong"]
    np.testing.assert_allclose(
        drawn(figure.panels[0])["run-1"][1], 100 * found.test_accuracy.sel(rule="fa").mean("seed")
    )


def test_without_factors_there_is_one_row_for_each_method():
    found = grid()
    accuracy, angles = over_factors(prepared(found), methods_of(found))
    assert len(accuracy.panels) == len(angles.panels) == 2
    names = [label.get_text() for label in accuracy.panels[0].axes[0].get_yticklabels()]
    assert names == ["bp", "fa", "ia"]
    best = 100 * float(found.test_accuracy.sel(rule="bp").mean())
    assert f"bp {best:.1f}" in accuracy.alt


def test_other_factors_make_figures_of_their_own_and_what_was_not_planned_none():
    found = grid(depth=(2, 8), noise=(0.0, 0.1))
    found["status"].loc[{"depth": 8, "noise": 0.1}] = "absent"
    found["test_accuracy"].loc[{"depth": 8, "noise": 0.1}] = np.nan
    figures = list(over_factors(prepared(found), methods_of(found)))
    assert [figure.name for figure in figures if figure.name.startswith("accuracy")] == [
        "accuracy-over-depth-noise-0",
        "accuracy-over-noise-depth-2",
    ]


def test_one_seed_has_no_interval_and_says_so():
    found = grid(seeds=1, depth=(2, 8))
    figure, _ = over_factors(prepared(found), methods_of(found))
    assert "one seed each: no interval" in figure.caption
    assert not figure.panels[0].axes[0].collections
    assert "95 % interval" not in levels_table(prepared(found), methods_of(found)).columns


def test_methods_are_ranked_over_the_levels_that_all_have():
    found = grid(seeds=2, depth=(2, 8))
    for seed in (0, 1):
        ended(found, "failed", rule="bp", depth=8, seed=seed)
    accuracy = 100 * found["test_accuracy"].sel(depth=2).mean("seed")
    said = ", ".join(f"{rule} {float(accuracy.sel(rule=rule)):.1f}\xa0%" for rule in ("bp", "fa", "ia"))
    assert (
        ranking(prepared(found)) == f"Test accuracy, averaged over the levels that every method has finished: {said}."
    )
    alone = grid(seeds=3).sel(rule=["ia"])
    assert ranking(prepared(alone)) == f"Test accuracy: ia {100 * float(alone.test_accuracy.mean()):.1f}\xa0%."
    for seed in (0, 1):
        ended(found, "failed", rule="ia", depth=2, seed=seed)
    assert ranking(prepared(found)) == "There is no level at which every method has a finished cell."


@pytest.fixture
def folder(tmp_path):
    """A study with all its parts."""
    found = grid(depth=(2, 8))
    ended(found, "failed", "killed by signal 9", rule="fa", depth=8, seed=1)
    put(found, tmp_path)
    put(sweep(), tmp_path / "sweeps" / "coefficients")
    put(transfer(), tmp_path / "transfers" / "deeper")
    write_claims(decide(gather(tmp_path), ["ia-gap-widens", "fa-behind-bp", "kp-near-bp"]), tmp_path / "claims.json")
    plan = {
        "title": "Two routes",
        "command": "wtdiag study two-routes",
        "file": "[settings]",
        "versions": {"torch": "2"},
    }
    (tmp_path / "study.json").write_text(json.dumps(plan))
    return tmp_path


def test_a_claim_is_drawn_over_the_range_that_it_claims():
    named = {"sa-matches-bp-deep": 0.02, "wm-over-fa": 0.02, "fa-behind-bp": -0.02, "of-a-plugin": 0.0}
    results = [Result(name, "", "", "", 0.1, 0.05, 0.2, 5, at, VERDICTS[0], "") for name, at in named.items()]
    *_, figure = claims_section.blocks(results)
    (axes,) = figure.panels[0].axes
    low, high = axes.get_xlim()
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert spans == [(-2, 2), (2, pytest.approx(high)), (pytest.approx(low), -2)]
    assert [line.get_xdata()[0] for line in axes.lines] == [10] * 4
    assert high > 20
    assert figure.data.rows[0] == ("sa-matches-bp-deep", "10.0", "5.0", "20.0", "2.0")
    assert len(claims_section.blocks(results[:1])) == 1


def test_a_study_says_claims_first_and_holds_its_sweeps_and_transfers(folder):
    report = study.report(folder)
    assert [section.title for section in report.sections] == [
        "Result", "Over depth", "All levels", "Sweep “coefficients”: robustness", "Sweep “coefficients”: parameters",
        "Sweep “coefficients”: measured and predicted stability", "Transfer “deeper”", "Not finished",
        "How claims are decided", "How it was done",
    ]  # fmt: skip
    numbers, claims, drawn = report.sections[0].blocks  # the reasons stand at the end
    assert isinstance(numbers, Numbers)
    assert {number.label: number.value for number in numbers.numbers}["failed"] == "1"
    assert isinstance(claims, Table)
    results = decide(gather(folder), ["ia-gap-widens", "fa-behind-bp", "kp-near-bp"])
    assert [row[0] for row in claims.rows] == [result.claim for result in results]
    assert [row[1].split(" ", 1)[1] for row in claims.rows] == [result.verdict for result in results]
    assert "not tested" in claims.rows[2][1]
    assert [row[0] for row in drawn.data.rows] == ["ia-gap-widens", "fa-behind-bp"]  # the third has no statistic
    (reasons,) = next(each for each in report.sections if each.title == "How claims are decided").blocks
    assert isinstance(reasons, Terms)
    assert [term.details[0][1] for term in reasons.terms] == [result.why for result in results]
    assert report.verdict.startswith("Of 3 verdicts on the papers' claims")
    assert blocks(report.sections, Code)[0].text == "wtdiag study two-routes"
    lost = next(section for section in report.sections if section.title == "Not finished").blocks[0]
    assert lost.rows == (("fa, depth 8, seed 1", "failed: killed by signal 9"),)


def test_each_verdict_has_a_sign_of_its_own(folder):
    results = decide(gather(folder), ["fa-behind-bp"])
    write_claims([replace(results[0], verdict=verdict) for verdict in VERDICTS], folder / "claims.json")
    signs = [row[1].split()[0] for row in study.report(folder).sections[0].blocks[1].rows]
    assert len(set(signs)) == len(VERDICTS)


def test_both_pages_are_written(folder):
    assert publish(study.report(folder), folder, "study") == [folder / "study.html", folder / "study.pdf"]
    text = "".join(page.extract_text() for page in pypdf.PdfReader(folder / "study.pdf").pages)
    page = (folder / "study.html").read_text()
    for said in ("Two routes", "Feedback alignment falls behind backpropagation.", "killed by signal 9"):
        assert said in page
        assert said in re.sub(r"\s+", " ", text)


def test_tuned_parameters_are_told_once_for_each_level_they_differ_by(folder):
    found = grid(depth=(2, 8))
    tables = [table for table in blocks(study.report(folder).sections, Table) if "tuning chose" in table.caption]
    assert [table.columns for table in tables] == [("rule", "lr")]
    assert tables[0].rows == (("bp", "0.01"), ("fa", "0.02"), ("ia", "0.04"))
    found["tuned_lr"].loc[{"rule": "ia", "depth": 8}] = 0.5
    put(found, folder)
    tables = [table for table in blocks(study.report(folder).sections, Table) if "tuning chose" in table.caption]
    assert ("8", "0.01", "0.02", "0.5") in tables[0].rows


def test_runs_are_drawn_over_training_layer_by_layer(tmp_path):
    found = grid(("bp", "fa"), seeds=2)
    put(found, tmp_path)
    data = {}
    for rule in ("bp", "fa"):
        for seed in (0, 1):
            data[rule, seed] = analysis(3, 6, rule=rule, seed=seed)[["weight_angle", "error_angle"]]
            path = tmp_path / str(found["run"].sel(rule=rule, seed=seed).item())
            write_run(path, data[rule, seed], rule=rule, accuracy=0.9, last_step=400)
    section = next(each for each in study.report(tmp_path).sections if each.title == "Over training")
    (figure,) = section.blocks
    titles = [panel.axes[0].get_title(loc="left") for panel in figure.panels]
    assert titles == [
        "Test accuracy (%)", "Weight angle fc2 (°)", "Weight angle fc3 (°)", "Error angle fc1 (°)",
        "Error angle fc2 (°)", "Key",
    ]  # fmt: skip
    mean = sum(data["fa", seed].weight_angle.sel(layer="fc3").values for seed in (0, 1)) / 2
    np.testing.assert_allclose(drawn(figure.panels[2])["run-1"][1], mean)


def test_accuracy_on_held_out_examples_is_drawn_where_there_is_no_test(tmp_path):
    found = grid(("bp",), seeds=1)
    put(found, tmp_path)
    run = write_run(tmp_path / str(found["run"].item()), analysis(3, 4)[["weight_angle"]], last_step=400)
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().replace("test_", "validation_"))
    section = next(each for each in study.report(tmp_path).sections if each.title == "Over training")
    panel = section.blocks[0].panels[0]
    assert panel.axes[0].get_title(loc="left") == "Validation accuracy (%)"
    assert len(drawn(panel)["run-0"][1]) == 3


def test_runs_outside_the_folder_are_not_read(tmp_path):
    found = grid(("bp",), seeds=1)
    write_run(tmp_path / "secret", analysis(3, 4)[["weight_angle"]])
    for path in ("../secret", str(tmp_path / "secret")):
        found["run"][:] = path
        report = study.report(put(found, tmp_path / "study"))
        assert "Over training" not in [section.title for section in report.sections]


def test_a_damaged_run_is_told_and_costs_only_itself(tmp_path):
    found = grid(("bp", "fa"), seeds=1)
    put(found, tmp_path)
    for rule in ("bp", "fa"):
        write_run(tmp_path / str(found["run"].sel(rule=rule, seed=0).item()), analysis(3, 4)[["weight_angle"]])
    (tmp_path / str(found["run"].sel(rule="fa", seed=0).item()) / "config.json").write_text("{")
    section = next(each for each in study.report(tmp_path).sections if each.title == "Over training")
    assert isinstance(section.blocks[0], Figure)
    assert section.blocks[1].text.startswith("1 run could not be read. The first error is: ")


def test_a_study_of_sweeps_alone(tmp_path):
    put(sweep(), tmp_path / "sweeps" / "coefficients")
    report = study.report(tmp_path)
    assert report.verdict.startswith("Share of configurations")
    assert html.render(report)


def test_nothing_finished_is_said(tmp_path):
    found = grid(seeds=2, depth=(2, 8))
    for at in np.ndindex(3, 2, 2):
        rule, depth, seed = (found[dim].values[i] for dim, i in zip(found["status"].dims, at, strict=True))
        ended(found, "pending", "not begun", rule=rule, depth=depth, seed=seed)
    report = study.report(put(found, tmp_path))
    assert "No cell has finished." in report.verdict
    assert len(next(each for each in report.sections if each.title == "Not finished").blocks[0].rows) == 12
    assert pdf.render(report).startswith(b"%PDF-")


def test_texts_of_strangers_are_never_markup(tmp_path):
    levels = ("<b>", "$a$" + "y" * 60)
    found = grid(EVIL, seeds=1, **{"<i>&": levels})
    ended(found, "failed", '<img src=x> #panic("x")', rule=EVIL[1], seed=0, **{"<i>&": "<b>"})
    found.attrs["title"] = '<b>"title" $x$'
    put(found, tmp_path)
    put(sweep(EVIL[:3], 12), tmp_path / "sweeps" / "a<b>$")
    put(transfer(EVIL[:3], ("<s>", "$t$"), seeds=1), tmp_path / "transfers" / "<t>")
    report = study.report(tmp_path)
    page = html.render(report)
    for markup in ("<script>alert", "<img src=x>", "<i>&", "<s>", "<t>"):
        assert markup not in page
    assert "\x07" not in page
    names = [figure.name for figure in blocks(report.sections, Figure)]
    assert len(set(names)) == len(names)
    text = "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf.render(report))).pages)
    assert "$x$" in text
    assert '<script>alert("x")</script>' in text


def test_methods_of_many_names_all_look_different():
    rules = ("bp", "fa", "usf", "kp", "wm", "ia", "ia-adam", "ia-sgd", "wm-adam", "mine", "yours")
    methods = methods_of(grid(rules, seeds=1))
    assert len({methods.look(name) for name in rules}) == len(rules)


def test_many_cells_and_failures_make_whole_pages(tmp_path):
    rules = ("bp", "fa", "usf", "brsf", "frsf", "dfa", "drtp", "kp", "wm", "wm-reg", "ia", "sa", "aa")
    found = grid(rules, seeds=4, depth=(2, 4, 8, 16))
    for i, rule in enumerate(rules):
        ended(found, "failed" if i % 2 else "diverged", f"reason {i}", rule=rule, depth=8, seed=i % 4)
    report = study.report(put(found, tmp_path))
    document = pypdf.PdfReader(io.BytesIO(pdf.render(report)))
    text = "".join(page.extract_text() for page in document.pages)
    assert all(f"reason {i}" in text for i in range(13))
    assert len(html.render(report)) < 2e6


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds no results; expected results.nc"),
        ({"study.json": "[1]"}, r"study.json: holds a JSON list; expected an object"),
        ({"claims.json": "{}"}, r"claims.json: expected claims of format 2"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, files, message):
    if files:
        put(grid(("bp",), seeds=1), tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        study.report(tmp_path)


def test_results_of_another_kind_are_refused(tmp_path):
    put(sweep(), tmp_path)
    with pytest.raises(InputError, match=r"holds the results of a 'sweep'; expected those of a 'grid'"):
        study.report(tmp_path)
    with pytest.raises(InputError, match=r"^formats: 'docx' is not known"):
        publish(study.report(put(grid(), tmp_path)), tmp_path, "study", ["docx"])
    same = grid(("bp", "a\x07", "a\x08"), seeds=1)
    with pytest.raises(InputError, match="rule has levels that differ only in what cannot be printed"):
        load(put(same, tmp_path), "grid")


def test_words_of_the_page_are_paragraphs(folder):
    texts = [block.text for block in blocks(study.report(folder).sections, Text)]
    assert texts
    assert all(text.endswith(".") for text in texts)
