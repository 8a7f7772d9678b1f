"""What both page formats show, and what neither may do."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pypdf
import pytest

from tests.reports.runs import analysis, finding, write_run
from wtdiag import reports
from wtdiag.reports.comparison.joint import joint
from wtdiag.reports.document import html, pdf
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load

EVIL = '<script>alert("x")</script>'
TYPST = '#panic("x") $x$ *bold* @ref `raw` \\ " ]'


class Page(HTMLParser):
    """All tags of a page with their attributes, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.source, self.tags, self.text, self.scripts, self.unclosed = text, [], "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":  # the one element of ours that has no end
            self.unclosed.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag

    def handle_data(self, data):
        if self.unclosed[-1:] == ["script"]:
            self.scripts.append(data)
        elif "style" not in self.unclosed:
            self.text += data

    def values(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run in which every text is an attempt on the page, and half of the numbers are none."""
    data = analysis(5, 8, names=[EVIL, TYPST, "x" * 80, "重み\x07", "a&b"], modes=4)
    for name in data.data_vars:
        if {"step", "layer"} <= set(data[name].dims):
            data[name][5:], data[name][:, 2] = np.nan, np.inf
    data.weight_angle.attrs |= {"long_name": EVIL, "equation": TYPST, "reference": "\x07"}
    path = write_run(
        tmp_path_factory.mktemp("runs") / "a&<b>",
        data,
        rule=EVIL,
        status="diverged",
        diverged={"step": 7, "what": TYPST},
        settings={EVIL: TYPST, "nested": {"\ud800": [EVIL]}},
        command=["wtdiag", EVIL, TYPST],
    )
    return load(path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Four runs of three rules, one of them not ours."""
    folder = tmp_path_factory.mktemp("runs")
    rules = [("fa", 0.9), ("kp", 0.97), ("kp", 0.96), ("mine", 0.5)]
    return [
        load(write_run(folder / f"{rule}{i}", analysis(3 + i, rule=rule, seed=i), rule=rule, accuracy=accuracy))
        for i, (rule, accuracy) in enumerate(rules)
    ]


@pytest.fixture(scope="module")
def attempt(hostile):
    """The report on the hostile run."""
    return single(hostile)


@pytest.fixture(scope="module", params=["single", "joint"])
def page(request, attempt, hostile, compared):
    return Page(html.render(attempt if request.param == "single" else joint([*compared, hostile])))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with every measure, and its report."""
    source = load(write_run(tmp_path_factory.mktemp("runs") / "ia6", analysis()))
    return source, single(source)


@pytest.fixture(scope="module")
def document(whole):
    return pypdf.PdfReader(io.BytesIO(pdf.render(whole[1])))


def test_page_asks_the_network_for_nothing(page):
    assert not {"link", "iframe", "object", "embed", "img", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "src"]
    links = page.values("href") + page.values("xlink:href")
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not re.search(r"@import|url\((?!#)", page.source)
    assert "default-src 'none'" in page.source


def test_page_runs_one_script_and_no_other(page):
    data, script = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in page.source.replace("&#39;", "'")
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{"type": "application/json", "id": "data"}, {}]
    assert not re.search("[<>&\u2028]", data)  # nothing that could end the element
    charts = [chart for figure in json.loads(data)["figures"].values() for chart in figure["charts"]]
    assert len(charts) == page.source.count('<div class="panel') - page.source.count('<div class="panels"')
    assert any(charts)
    assert all(chart["lines"] or chart["rows"] for chart in charts if chart)


def test_page_is_whole(page):
    assert not page.unclosed
    ids = Counter(page.values("id"))
    assert max(ids.values()) == 1
    targets = [link[1:] for link in page.values("href") + page.values("xlink:href") if link.startswith("#")]
    targets += page.values("aria-labelledby")
    targets += re.findall(r"url\(#([^)]+)\)", " ".join(page.values("style") + page.values("clip-path")))
    assert targets
    assert set(targets) <= set(ids)


def test_text_is_shown_as_it_is(attempt):
    page = Page(html.render(attempt))
    for text in (EVIL, TYPST, "x" * 80, "重み\N{REPLACEMENT CHARACTER}", "a&<b>"):
        assert text in page.text


def test_figures_follow_the_theme(whole, css):
    text = html.render(whole[1]).split("</style>", 1)[1].split("<script")[0]
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert used >= {"--ink", "--muted", "--grid", "--band"}
    light, dark = (css.split(":root {")[i].split("}")[0] for i in (1, 2))
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)
    assert "#1f2430" not in text  # the ink of a light page only


def test_every_figure_has_words_and_numbers(page):
    figures = sum(tag == "figure" for tag, _ in page.tags)
    assert figures >= 5
    assert sum(attrs.get("role") == "img" and len(attrs["aria-label"]) > 40 for _, attrs in page.tags) == figures
    assert sum(tag == "figcaption" for tag, _ in page.tags) == figures
    assert sum(tag == "summary" for tag, _ in page.tags) == figures


def test_document_holds_the_report(whole, document):
    source, report = whole
    pages = [page.extract_text() for page in document.pages]
    text = " ".join(" ".join(pages).split())
    assert 5 <= len(pages) <= 9
    for section in report.sections:
        assert section.title in pages[0]  # the contents
        assert text.count(section.title) >= 2
    assert f"1 / {len(pages)}" in pages[0]
    assert "96.5 % test accuracy" in text
    assert f"{source.analysis.error_angle.values[-1, 0]:.1f}°" in text
    assert "∠(W, B) = arccos(⟨W, B⟩ / (‖W‖ ‖B‖))" in text
    assert document.metadata.title == report.title
    assert "`" not in text


def test_document_embeds_its_fonts_and_is_a4(document):
    fonts = {}
    for page in document.pages:
        assert (round(page.mediabox.width), round(page.mediabox.height)) == (595, 842)
        for font in page["/Resources"]["/Font"].get_object().values():
            descriptor = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object()
            fonts[descriptor["/FontName"]] = {"/FontFile2", "/FontFile3"} & set(descriptor)
    assert fonts
    assert all(fonts.values())


def test_document_takes_text_as_text(attempt):
    document = pypdf.PdfReader(io.BytesIO(pdf.render(attempt)))
    text = "".join(page.extract_text() for page in document.pages).replace("\u200b", "")
    for part in ('#panic("x") $x$ *bold* @ref `raw` \\', EVIL):
        assert re.sub(r"\s", "", part) in re.sub(r"\s", "", text)


def test_joint_report_compares_the_numbers(compared):
    report = joint(compared)
    table = report.sections[0].blocks[0]
    assert table.columns[:4] == ("run", "test accuracy", "rule", "layers")
    for source, row in zip(compared, table.rows, strict=True):
        last = source.analysis.isel(step=-1)
        assert row[:4] == (
            source.name,
            f"{100 * source.metric('test_accuracy').iloc[-1]:.1f}\N{NO-BREAK SPACE}%",
            source.rule,
            str(source.analysis.sizes["layer"]),
        )
        assert row[4] == f"{last.weight_angle.values[1:].mean():.1f}°"
        assert row[5] == f"{last.error_angle.values[0]:.1f}°"
        assert row[table.columns.index("status")] == "finished"
    verdict = report.verdict.replace("\N{NO-BREAK SPACE}", " ")
    best = "Best test accuracy: kp1 (kp) with 97.0 %; lowest: mine3 (mine) with 50.0 %."
    assert verdict == f"{best} Not diagnosed: {', '.join(source.name for source in compared)}."
    assert [section.title for section in report.sections[1:-1]] == [f"Run {source.name}" for source in compared]


def test_runs_that_tie_have_no_loser(tmp_path):
    def verdict(*accuracies):
        runs = [
            write_run(
                tmp_path / f"{accuracies}" / f"fa{i}", analysis(2)[["weight_angle"]], rule="fa", accuracy=accuracy
            )
            for i, accuracy in enumerate(accuracies)
        ]
        return joint(list(map(load, runs))).verdict.replace("\N{NO-BREAK SPACE}", " ")

    assert verdict(0.9, 0.9).startswith("All have the same test accuracy: fa0 (fa), fa1 (fa) with 90.0 %.")
    assert verdict(0.8, 0.9, 0.9).startswith(
        "Best test accuracy: fa1 (fa), fa2 (fa) with 90.0 %; lowest: fa0 (fa) with 80.0 %."
    )
    assert verdict(*[0.9] * 6).startswith("All have the same test accuracy: 6 runs with 90.0 %.")


def test_joint_curves_are_the_runs(compared):
    blocks = joint(compared).sections[0].blocks
    accuracy, angle = next(block for block in blocks if getattr(block, "name", "") == "comparison").panels
    for source, line, aligned in zip(compared, accuracy.axes[0].lines, angle.axes[0].lines, strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * source.metric("test_accuracy"))
        np.testing.assert_allclose(aligned.get_ydata(), source.analysis.weight_angle[:, 1:].mean("layer"))


def held_out(folder, **config):
    """Write a run as ``wtdiag train --holdout`` leaves it: evaluated on examples held out of the training set."""
    path = write_run(folder, analysis(2)[["weight_angle", "weight_angle_null", "weight_angle_null_sd"]], **config)
    metrics = path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"test_', '"validation_'))
    return load(path)


def test_a_run_with_a_holdout_shows_its_evaluations(tmp_path):
    source = held_out(tmp_path / "run", rule="fa", accuracy=0.9)
    report = single(source)
    assert "validation accuracy 90.0" in report.verdict
    summary, training = report.sections[0], report.sections[1].blocks[0]
    first = summary.blocks[0].numbers[0]
    assert (first.label, first.note) == ("validation accuracy", "at step 2000")
    for panel, name, scale in zip(training.panels, ("accuracy", "loss"), (100, 1), strict=True):
        (line,) = (line for line in panel.axes[0].lines if line.get_gid() == "validation")
        np.testing.assert_allclose(line.get_ydata(), scale * source.metric(f"validation_{name}"))
    columns = ("step", "training accuracy", "validation accuracy", "training loss", "validation loss")
    assert training.data.columns == columns
    assert training.data.rows[-1][2] == "90.0\N{NO-BREAK SPACE}%"
    assert "–" not in {cell for row in training.data.rows for cell in row}
    assert not re.search("test (set|accuracy|loss)", html.render(report))


def test_accuracies_on_different_sets_are_not_compared(tmp_path):
    held = [held_out(tmp_path / name, rule=name, accuracy=accuracy) for name, accuracy in (("fa", 0.9), ("bp", 0.95))]
    report = joint(held)
    assert report.verdict.replace("\N{NO-BREAK SPACE}", " ").startswith(
        "Best validation accuracy: bp with 95.0 %; lowest: fa with 90.0 %."
    )
    table, figure = (next(b for b in report.sections[0].blocks if b.kind == kind) for kind in ("table", "figure"))
    assert [row[table.columns.index("validation accuracy")][:4] for row in table.rows] == ["90.0", "95.0"]
    for source, line in zip(held, figure.panels[0].axes[0].lines, strict=False):
        np.testing.assert_allclose(line.get_ydata(), 100 * source.metric("validation_accuracy"))

    mixed = joint([*held, load(write_run(tmp_path / "kp", analysis(2)[["weight_angle"]], rule="kp", accuracy=0.5))])
    assert mixed.verdict.replace("\N{NO-BREAK SPACE}", " ").startswith("Best test accuracy: kp with 50.0 %. ")
    table = mixed.sections[0].blocks[0]
    assert [row[table.columns.index("test accuracy")][:4] for row in table.rows] == ["–", "–", "50.0"]


def test_methods_define_the_measures_that_are_shown(tmp_path):
    data = analysis(2)[["weight_angle", "weight_angle_null", "weight_angle_null_sd", "forward_norm", "step"]]
    report = single(load(write_run(tmp_path / "r", data)))
    said, defined = report.sections[-1].blocks
    terms = defined.terms
    assert [term.name for term in terms] == ["Weight angle (weight_angle)"]
    assert "holds 1 more" in said.text  # the forward norm, which no figure shows
    details = dict(terms[0].details)
    assert details["equation"] == data.weight_angle.attrs["equation"]
    assert details["by chance"] == "90.0 (standard deviation 0.895), by layer"


def test_settings_list_everything_that_made_the_run(whole):
    code, table = whole[1].sections[-2].blocks
    assert code.text.startswith("wtdiag train --rule ia")
    rows = dict(table.rows)
    assert rows["seed"] == "0"
    assert rows["optimizer.lr"] == "0.05"
    assert rows["rule.null"] == "0.01"
    assert rows["versions.torch"] == "2.15.0"
    assert rows["git_commit"] == "0123456789abcdef"


def one_snapshot(folder):
    return single(load(write_run(folder / "r", analysis(3, 1), events=[(0, "loss jumped")])))


def layers_without_values(folder):
    data = analysis(5, 6).drop_vars(["forward_stable_rank", "feedback_stable_rank", "norm_ratio", "sign_agreement"])
    for name in data.data_vars:
        if {"step", "layer"} <= set(data[name].dims):
            data[name].loc[{"layer": ["fc1", "fc3"]}] = np.nan
    return single(load(write_run(folder / "r", data, findings=[finding(evidence=())])))


def nothing_finite(folder):
    return single(load(write_run(folder / "r", analysis(3, 4) * np.nan, status="diverged", last_step=-1)))


def twenty_runs(folder):
    runs = [write_run(folder / f"run {i}", analysis(2, 3, seed=i)[["error_angle"]], last_step=400) for i in range(20)]
    return joint([load(run) for run in runs])


@pytest.mark.parametrize("kind", [one_snapshot, layers_without_values, nothing_finite, twenty_runs])
def test_hard_runs_make_whole_pages(tmp_path, kind):
    text = html.render(kind(tmp_path))
    page = Page(text)
    assert not page.unclosed
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", page.text)
    assert len(text) < 5e6


def test_deep_network_makes_a_small_page(tmp_path):
    path = write_run(tmp_path / "deep", analysis(110, 50, modes=64))
    written = reports.write([path])
    assert all(file.stat().st_size < 5e6 for file in written)
