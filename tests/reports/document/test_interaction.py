"""The page under a hand: a browser points, picks, slides and downloads, with the network off."""

import csv
import io
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.reports.runs import analysis, finding, write_run
from tests.reports.studied import put, sweep
from wtdiag import reports
from wtdiag.reports.comparison.joint import joint
from wtdiag.reports.document import html
from wtdiag.reports.figures import sized
from wtdiag.reports.publish import publish
from wtdiag.reports.run.sources import load
from wtdiag.reports.runs_index import write_index
from wtdiag.reports.study import sweep_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
EVIL = "<script>evil = 1</script><img src=x onerror='evil = 1'>"
NAMES = ["fc1", "=2+3", EVIL, "x" * 80, "重み", "fc6"]
MAPS = ("weight_angle", "sign_agreement", "weight_gain", "step_size_number")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def data():
    return analysis(names=NAMES, snapshots=12)


@pytest.fixture(scope="module")
def written(tmp_path_factory, data):
    """The page on a run with hostile layer names."""
    folder = tmp_path_factory.mktemp("runs") / "ia6"
    write_run(folder, data, findings=[finding(summary=EVIL)], events=[(340, EVIL)])
    return reports.write([folder], formats=["html"])[0]


def open_tab(browser, **kind):
    """Open a tab with the network off, and the list of all that it asks for or complains of."""
    page, seen = browser.new_page(viewport={"width": 1280, "height": 900}, offline=True, **kind), []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("dialog", lambda dialog: seen.append(dialog.message))
    return page, seen


@pytest.fixture(scope="module")
def tab(browser):
    return open_tab(browser)


@pytest.fixture
def visit(tab):
    """Open a page; when the test is over, it must have asked for nothing and complained of nothing."""
    page, seen = tab
    page.emulate_media(media="screen", color_scheme="light")
    seen.clear()

    def visit(path):
        page.goto(path.as_uri())
        return page

    yield visit
    assert len(seen) == 1
    assert seen[0].startswith("file://")


@pytest.fixture
def page(visit, written):
    return visit(written)


def panel(page, figure, index):
    return page.locator(f"#{figure} .panel").nth(index)


def point(page, target, across, down):
    """Put the pointer at a place of an element, given in parts of its width and height."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
    return page.locator(".tip").inner_text().split("\n")


def cell(data, layer, step):
    """Return where the middle of a map's cell lies, in parts of its width and height from the top."""
    axes = sized.heatmap(data, "weight_angle").axes[0]
    axes.figure.canvas.draw()
    edges = axes.collections[0].get_coordinates()[0]
    across = axes.transAxes.inverted().transform(axes.transData.transform(edges))[:, 0]
    return across[step : step + 2].mean(), 1 - (layer + 0.5) / data.sizes["layer"]


@pytest.mark.parametrize(("layer", "step"), [(0, 0), (3, 7), (2, 5), (5, 11)])
def test_pointing_at_a_map_reads_its_value(page, data, layer, step):
    said = point(page, panel(page, "layers-maps", 0).locator("image").first, *cell(data, layer, step))
    value = data.weight_angle.values[step, layer]
    assert said == [NAMES[layer], f"Weight angle, step {int(data.step[step])}", f"{value:.1f}°"]
    page.mouse.move(1, 1)
    assert not page.locator(".tip").is_visible()


def test_pointing_at_a_curve_reads_its_value(page, data):
    chart = panel(page, "curves", 2)
    curve = chart.locator('[data-subject="4"] > path').first
    end = re.findall(r"[\d.]+ [\d.]+", curve.get_attribute("d"))[-1].split()
    svg = chart.locator("svg")
    width, height = map(float, svg.get_attribute("viewBox").split()[2:])
    name, where, value = point(page, svg, float(end[0]) / width, float(end[1]) / height)
    assert (name, where) == (NAMES[4], "Norm ratio, step 2000")
    assert float(value) == pytest.approx(data.norm_ratio.values[-1, 4], rel=5e-3)


def test_a_picked_layer_stands_out_everywhere(page, data):
    image = panel(page, "layers-maps", 1).locator("image").first
    point(page, image, *cell(data, 4, 2))
    page.mouse.down()
    page.mouse.up()
    assert page.locator("#pick").input_value() == "4"
    for figure in ("curves", "ranks", "stability", "attribution"):
        assert page.locator(f'#{figure} svg [data-subject="4"].picked').count() > 0
        assert page.locator(f'#{figure} svg [data-subject="4"].faded').count() == 0
        others = page.locator(f'#{figure} svg [data-subject]:not([data-subject="4"])')
        assert others.count() == page.locator(f"#{figure} svg .faded").count() > 0
    assert page.locator("tr.picked th").all_inner_texts()[0] == NAMES[4]
    assert page.locator("#layers-maps .row").count() == page.locator("#layers-maps svg").count() == 4
    page.keyboard.press("Escape")
    assert page.locator("svg .faded, svg .picked, tr.picked").count() == 0


def test_a_layer_is_picked_from_its_table_by_keyboard(page):
    button = page.locator("tbody button").nth(2)
    assert button.inner_text() == EVIL
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#pick").input_value() == "2"
    assert page.locator("#pick option:checked").inner_text() == EVIL
    page.keyboard.press("Enter")
    assert page.locator("#pick").input_value() == ""


def test_the_bar_says_what_the_picked_layer_holds_at_the_step(page, data):
    page.locator("#pick").select_option("5")
    page.locator("#step").focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    at = data.isel(step=7, layer=5)
    assert page.locator(".step").inner_text() == str(int(at.step))
    assert page.locator("#step").get_attribute("aria-valuetext") == f"step {int(at.step)}"
    said = page.locator(".values").inner_text()
    assert f"Weight angle {float(at.weight_angle):.1f}°" in said
    for name, title in (("sign_agreement", "Sign agreement"), ("weight_gain", "Weight gain")):
        value = re.search(rf"{title} ([\d.]+)", said)[1]
        assert float(value) == pytest.approx(float(at[name]), rel=5e-3)


def test_the_slider_moves_spectra_profile_and_cursors(page, data):
    spectrum = page.locator('#spectra [data-id="forward"] > path').first
    before = spectrum.get_attribute("d")
    page.locator("#step").fill("3")
    assert spectrum.get_attribute("d") != before
    step = int(data.step[3])
    assert f"The lines are those of step {step};" in page.locator("#spectra .at").inner_text()
    cursors = page.locator("#layers-maps rect.cursor")
    assert cursors.count() == 4
    first = panel(page, "layers-maps", 0)
    image, cursor = (first.locator(what).first.bounding_box() for what in ("image", "rect.cursor"))
    middle = cursor["x"] + cursor["width"] / 2 - image["x"]
    assert middle / image["width"] == pytest.approx(cell(data, 0, 3)[0], abs=0.02)
    # The first layer sends nothing, so the third marker is the fourth layer's.
    marker = page.locator('#errors [data-id="error_angle_total"] use').nth(2)
    marker.scroll_into_view_if_needed()
    box = marker.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    said = page.locator(".tip").inner_text()
    assert said.startswith(f"{NAMES[3]}, total")
    assert f"{data.error_angle_total.values[3, 3]:.1f}°" in said
    page.locator("#step").fill("11")
    assert page.locator("#spectra .at").is_hidden()


def ends(page, figure):
    """Return the first and the last horizontal position of the first line of a figure's first panel."""
    path = panel(page, figure, 0).locator('[data-subject="4"] > path').first.get_attribute("d")
    points = re.findall(r"([-\d.]+) [-\d.]+", path)
    return float(points[0]), float(points[len(points) // 2]), float(points[-1])


def test_the_axis_of_steps_is_switched_and_zoomed_in_all_charts(page, data):
    before = ends(page, "curves")
    page.locator("#axis").select_option("linear")
    first, middle, last = ends(page, "curves")
    assert (first, last) == pytest.approx((before[0], before[2]), abs=1.5)
    assert middle < before[1] - 5  # most snapshots are early
    shown = panel(page, "curves", 0).locator(".relaid text").all_text_contents()
    assert shown == ["0", "500", "1k", "1.5k", "2k"]
    assert panel(page, "layers-maps", 0).locator("svg.relaid > svg").count() == data.sizes["step"]
    page.locator("#from").fill("1000")
    page.locator("#from").press("Enter")
    assert panel(page, "training", 0).locator(".relaid text").first.text_content() == "1k"
    said = point(page, panel(page, "layers-maps", 0).locator("svg").first, 0.5, 0.5)[1]
    assert int(said.split()[-1]) >= 900  # the pointer reads the map as it is shown
    page.locator("button", has_text="whole run").click()
    page.locator("#axis").select_option("")
    assert ends(page, "curves") == pytest.approx(before)
    assert page.locator(".relaid").count() == 0


def test_a_drag_zooms_and_picks_nothing(page):
    svg = panel(page, "curves", 0).locator("svg").first
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    for place, do in ((0.4, page.mouse.down), (0.6, page.mouse.up)):
        page.mouse.move(box["x"] + place * box["width"], box["y"] + 0.5 * box["height"], steps=3)
        do()
    assert 0 < int(page.locator("#from").input_value()) < int(page.locator("#to").input_value()) < 2000
    assert page.locator("#pick").input_value() == ""
    svg.dblclick(position={"x": box["width"] / 2, "y": box["height"] / 2})
    assert page.locator("#from").input_value() == ""
    page.keyboard.press("Escape")


def test_a_filter_keeps_the_layers_whose_names_match(page):
    page.locator("#filter").fill("FC")
    rows = page.locator("section > .scroll tr[data-subject]:visible")
    assert {name.split()[0] for name in rows.locator("th").all_inner_texts()} == {"fc1", "fc6"}
    assert page.locator('#curves [data-subject="4"]:visible').count() == 0
    page.locator("#filter").fill("")
    assert page.locator(".out").count() == 0


def download(page, figure, kind):
    button = page.locator(f"#{figure} .tools button", has_text=kind)
    button.scroll_into_view_if_needed()
    with page.expect_download() as caught:
        button.click()
    assert caught.value.suggested_filename == f"{figure}.{kind.lower()}"
    return Path(caught.value.path()).read_text()


def test_a_figure_is_downloaded_as_svg(page):
    page.locator("#pick").select_option("3")
    text = download(page, "layers-maps", "SVG")
    root = ElementTree.fromstring(text)
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 4
    assert "var(" not in text
    assert "#1f2430" in text
    assert "hand" not in text
    assert "Weight angle (°)" in "".join(root.itertext())


def test_the_numbers_are_downloaded_as_csv(page, data):
    head, *rows = csv.reader(io.StringIO(download(page, "layers-maps", "CSV")))
    assert head == ["panel", "series", "along", "at", "step", "value"]
    assert len(rows) == 4 * data.sizes["layer"] * data.sizes["step"]
    got = np.array([float(row[-1]) for row in rows]).reshape(4, data.sizes["layer"], -1)
    for values, name in zip(got, MAPS, strict=True):
        np.testing.assert_allclose(values, data[name].values.T, rtol=1e-3)
    names = list(dict.fromkeys(row[1] for row in rows))
    assert names == ["fc1", "'=2+3", EVIL, *NAMES[3:]]  # a spreadsheet must not compute a name

    rows = list(csv.DictReader(io.StringIO(download(page, "errors", "CSV"))))
    local = [row for row in rows if row["series"] == "local" and row["step"] == str(int(data.step[4]))]
    expected = data.error_angle_local.values[4, 1:]
    np.testing.assert_allclose([float(row["value"]) for row in local], expected, rtol=1e-3)


def test_text_of_a_run_is_never_markup(page):
    assert page.evaluate("typeof evil") == "undefined"
    assert page.locator("img").count() == 0
    assert page.locator(".findings").inner_text().count("<script>") == 1


def test_without_script_everything_is_there(browser, written):
    page, seen = open_tab(browser, java_script_enabled=False)
    page.goto(written.as_uri())
    assert page.locator("figure svg").first.is_visible()
    assert page.locator("figure").count() == 9
    assert page.locator("tbody th", has_text=NAMES[3]).first.is_visible()
    assert page.locator(".bar, .tools, .tip").count() == 0
    assert seen == [written.as_uri()]
    page.close()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = (page.evaluate(f"getComputedStyle(document.body)['{name}']") for name in ("background-color", "color"))
    paper, ink = (sum(map(int, re.findall(r"\d+", color)[:3])) / 765 for color in (paper, ink))
    assert (paper < 0.2 and ink > 0.8) if scheme == "dark" else (paper > 0.9 and ink < 0.3)
    page.locator("#pick").select_option("3")
    assert page.locator(".bar").bounding_box()["height"] < 100
    page.set_viewport_size({"width": 1280, "height": 900})


def test_print_leaves_the_controls_out(page):
    page.emulate_media(media="print")
    assert not page.locator(".bar").is_visible()
    assert not page.locator(".tools").first.is_visible()
    assert page.locator("#layers-maps svg").first.is_visible()


def test_runs_are_picked_in_a_comparison(visit, tmp_path):
    sources = [
        load(write_run(tmp_path / rule, analysis(4, 6, rule=rule, seed=i), rule=rule))
        for i, rule in enumerate(("bp", "fa", "ia"))
    ]
    (tmp_path / "report.html").write_text(html.render(joint(sources)))
    page = visit(tmp_path / "report.html")
    assert page.locator("#step").count() == 0
    page.locator("tbody button", has_text="fa").first.click()
    assert page.locator("#comparison svg .faded").count() == 4  # two panels, two other runs
    assert "Test accuracy 96.5" in page.locator(".values").inner_text()
    point(page, panel(page, "layers-1-maps", 0).locator("image").first, 0.9, 0.9)
    page.mouse.down()
    page.mouse.up()
    assert page.locator("#layers-1-maps .row").count() == 3
    assert page.locator("#layers-2-maps .row").count() == 0
    assert page.locator("#layers-0-maps").count() == 0  # those of backprop would show zeros
    assert axe_finds(page) == []


def axe_finds(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install -e .[dev]").Axe()
    return [(each["id"], each["nodes"][0]["html"]) for each in axe.run(page).response["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["report", "index"])
def test_axe_finds_no_violations(browser, written, kind, scheme):
    path = written if kind == "report" else write_index([written.parent], written.parent.parent)
    page, _ = open_tab(browser, color_scheme=scheme)
    page.goto(path.as_uri())
    found = axe_finds(page)
    page.close()
    assert found == []


def test_a_rule_is_named_once_where_its_curve_has_its_name(visit, tmp_path):
    put(sweep(), tmp_path)
    page = visit(publish(sweep_page.report(tmp_path), tmp_path, "sweep", ["html"])[0])
    marker = page.locator('#robustness [data-subject="0"] use').first
    marker.scroll_into_view_if_needed()
    box = marker.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator(".tip strong").inner_text() == "bp"


def test_an_index_is_sorted_and_filtered_and_links_to_reports(visit, tmp_path):
    data = analysis(2, 3)[["weight_angle"]]
    for name, rule, reached in (("a", "fa", 0.8), ("b", "kp", 0.95), ("c", EVIL, 0.5)):
        write_run(tmp_path / name, data, rule=rule, accuracy=reached, findings=[finding(summary=EVIL)])
    reports.write([tmp_path / "b"], formats=["html"])
    page = visit(write_index([tmp_path / name for name in "abc"], tmp_path))
    names = page.locator("tbody th:visible")
    assert names.all_inner_texts() == ["b", "a", "c"]  # the most accurate first
    assert page.locator("tbody a").get_attribute("href") == "b/report.html"
    assert page.locator("th[aria-sort=descending]").inner_text() == "accuracy"
    page.locator("thead button", has_text="accuracy").click()
    assert names.all_inner_texts() == ["c", "a", "b"]
    assert page.locator("th[aria-sort=ascending]").inner_text() == "accuracy"
    page.locator("#filter").fill("digits KP")
    assert names.all_inner_texts() == ["b"]
    assert page.locator("output").inner_text() == "1 of 3"
    assert page.evaluate("typeof evil") == "undefined"
    assert EVIL in page.content().replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
    page.set_viewport_size({"width": 400, "height": 800})
    box = page.locator("tbody td:visible").first.bounding_box()
    page.set_viewport_size({"width": 1280, "height": 900})
    assert box["x"] + box["width"] < 400  # the accuracy is in view on a telephone
