"""What is particular to the PDF: paper, margins, page breaks, contents, fonts."""

import io
import re

import numpy as np
import pypdf
import pytest
from PIL import Image

from tests.reports.runs import analysis, finding, write_run
from wtdiag.probes.errors import InputError
from wtdiag.reports import write
from wtdiag.reports.comparison.joint import joint
from wtdiag.reports.document import pdf
from wtdiag.reports.document.content import Table
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load

INCH = 25.4  # millimetres
NAMES = [
    "x" * 80,
    "<script>alert(1)</script>" * 3,
    "重み $α$ " * 10,
    "encoder.layers.11.attention.output.dense",
    "#fc *",
]


def squeezed(text):
    return re.sub(r"[\s\u200b]", "", text)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports on runs that are hard to set, by what makes them so."""
    runs = tmp_path_factory.mktemp("runs")
    broken = analysis(names=NAMES, snapshots=8, modes=4)
    for name in broken.data_vars:
        broken[name][5:] = np.nan
    bad = {"status": "diverged", "diverged": {"step": 7, "what": "#x"}, "findings": [finding(layer=NAMES[0])]}
    found = [finding(), finding("inherited-error", None, "medium"), finding("sign-flip", "fc2", "low")]
    paths = {
        "plain": write_run(runs / "plain", analysis(), findings=found, events=[(340, "loss jumped")]),
        "odd names": write_run(runs / ("y" * 80), broken, rule="z" * 60, **bad),
        "110 layers": write_run(runs / "deep", analysis(110, 12, modes=4), findings=[finding("nothing-wrong")]),
        "one snapshot": write_run(runs / "one", analysis(3, 1)),
    }
    sources = {kind: load(path) for kind, path in paths.items()}
    measured = analysis(3, 4, modes=4)[["weight_angle", "error_angle", "norm_ratio"]]
    several = [load(write_run(runs / f"r{i}", measured, rule="kp", last_step=400)) for i in range(12)]
    together = joint([sources["odd names"], *several])
    return {kind: single(source) for kind, source in sources.items()} | {"many runs": together}


@pytest.fixture(scope="module")
def documents(reports):
    """Each report as a document and the text of its pages."""
    read = {kind: pypdf.PdfReader(io.BytesIO(pdf.render(report))) for kind, report in reports.items()}
    return {kind: (document, [page.extract_text() for page in document.pages]) for kind, document in read.items()}


KINDS = pytest.mark.parametrize("kind", ["plain", "odd names", "110 layers", "one snapshot", "many runs"])


@pytest.mark.parametrize(
    ("kind", "paper", "size"),
    [
        *((kind, "a4", (210, 297)) for kind in ("plain", "odd names", "110 layers", "many runs")),
        *((kind, "letter", (215.9, 279.4)) for kind in ("odd names", "many runs")),
    ],
)
def test_nothing_lies_in_the_margins(reports, kind, paper, size):
    pages = pdf.typeset(reports[kind], paper, format="png", ppi=36)
    for page in pages if isinstance(pages, list) else [pages]:
        picture = Image.open(io.BytesIO(page)).convert("L")
        assert picture.size == pytest.approx([side / INCH * 36 for side in size], abs=1)
        ink = np.asarray(picture) < 250
        side, edge = (int(millimetres / INCH * 36) for millimetres in (16.5, 9))
        assert not ink[:, :side].any()
        assert not ink[:, -side:].any()
        assert not ink[:edge].any()
        assert not ink[-edge:].any()
        assert ink.any()


@KINDS
def test_contents_give_the_page_of_every_section(reports, documents, kind):
    document, texts = documents[kind]
    outline = {item.title: document.get_destination_page_number(item) for item in document.outline}
    titles = [f"{i}{section.title}" for i, section in enumerate(reports[kind].sections, start=1)]
    assert [squeezed(title) for title in outline] == [squeezed(title) for title in titles]
    first = squeezed(texts[0])
    for title, page in outline.items():
        assert re.search(rf"{re.escape(squeezed(title))}\.*{page + 1}", first), title
        assert squeezed(title) in squeezed(texts[page])


@KINDS
def test_tables_that_fit_on_a_page_are_not_split(reports, documents, kind):
    _, texts = documents[kind]
    pages = [squeezed(text) for text in texts]
    tables = [block for section in reports[kind].sections for block in section.blocks if isinstance(block, Table)]
    assert tables
    for table in tables:
        caption = squeezed(table.caption)
        (page,) = (text for text in pages if caption in text)
        rows = [all(squeezed(pdf.drawable(cell)) in page for cell in row[: table.labels]) for row in table.rows]
        assert all(rows) or len(rows) > 30, table.caption


def test_a_long_table_repeats_its_head(documents):
    _, texts = documents["110 layers"]
    pages = [text for text in texts if "fc50" in text or "fc90" in text or "fc108" in text]
    assert len(pages) >= 3
    heads = [text for text in texts if re.search(r"layer\s+kind", text)]
    assert len(heads) >= 3


def test_findings_come_first_and_say_how_severe(reports, documents):
    document, texts = documents["plain"]
    first = " ".join(texts[0].split())
    assert first.index("Not healthy") < first.index("Step too large") < first.index("Inherited error")
    assert re.search(r"Step too large high", first)
    assert re.search(r"Inherited error medium", first)
    links = [link for page in document.pages[:1] for link in page.get("/Annots", [])]
    assert len(links) > len(reports["plain"].sections)  # the contents, and from findings to figures


@KINDS
def test_fonts_are_embedded_and_figures_are_vectors_with_text(documents, kind):
    document, texts = documents[kind]
    fonts, pictures = {}, []
    for page in document.pages:
        for font in page["/Resources"]["/Font"].get_object().values():
            descriptor = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object()
            fonts[descriptor["/FontName"]] = {"/FontFile2", "/FontFile3"} & set(descriptor)
        pictures += [(image.image.size if image.image else (0, 0)) for image in page.images]
    assert fonts
    assert all(fonts.values())
    assert "Weightangle(°)" in squeezed(" ".join(texts))  # the title of a panel
    assert all(min(size) <= 400 for size in pictures)  # cells of maps at 150 dpi and keys; a whole panel has 500


def test_the_pdf_needs_no_font_of_the_machine(documents):
    document, texts = documents["odd names"]
    text = squeezed("".join(texts))
    assert r"\u91cd\u307f$α$" in text  # a name that no font which comes with typst or matplotlib can draw
    assert not re.search("[重み]", text)
    used = [font.get_object()["/BaseFont"] for page in document.pages for font in page["/Resources"]["/Font"].values()]
    assert {name.partition("+")[2].split("-")[0] for name in used} <= {
        *("LibertinusSerif", "NewCM10", "NewCMMath"),  # of typst
        *("DejaVuSans", "DejaVuSansMono"),  # of matplotlib
    }


def test_what_the_fonts_have_is_not_escaped(documents):
    for kind in ("plain", "110 layers", "one snapshot"):
        assert not re.search(r"\\[xuU][0-9a-f]{2}", "".join(documents[kind][1])), kind


def test_pages_are_numbered(documents):
    _, texts = documents["plain"]
    for number, text in enumerate(texts, start=1):
        assert f"{number} / {len(texts)}" in text
    assert 7 <= len(texts) <= 11


def test_paper_is_chosen_when_a_report_is_written(light, tmp_path):
    (path,) = write([light], formats=["pdf"], paper="letter", out=tmp_path)
    assert pypdf.PdfReader(path).pages[0].mediabox[2:] == [612, 792]
    with pytest.raises(InputError, match=r"^paper: 'a5' is not known"):
        write([light], paper="a5")


def test_other_paper_is_refused(reports):
    with pytest.raises(InputError, match=r"^paper: 'a5' is not known. Choices: a4, letter$"):
        pdf.render(reports["plain"], "a5")
