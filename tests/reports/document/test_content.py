"""What a report is made of, and that both renderings show it."""

import json
import re
from importlib import resources

import pytest
from matplotlib.figure import Figure as Panel

from wtdiag.reports.document.content import Block, Figure, Subjects, Table, Term, Terms

TEMPLATES = resources.files("wtdiag.reports.document").joinpath("templates")


@pytest.mark.parametrize("cls", Block.__subclasses__(), ids=lambda cls: cls.__name__)
def test_every_kind_of_block_is_shown_in_both_formats(cls):
    kind = cls.__name__.lower()
    assert re.search(rf"{{% macro {kind}\(", TEMPLATES.joinpath("blocks.html.j2").read_text(encoding="utf-8"))
    put = TEMPLATES.joinpath("report.typ").read_text(encoding="utf-8").split("#let put = (")[1]
    assert re.search(rf"^  {kind}: \(block, next\)", put, re.MULTILINE)


def test_what_is_printed_is_plain_data_without_what_only_a_screen_can_use():
    table = Table("Layers.", ("layer", "angle"), (("fc1", "90°"),), subjects=Subjects("layers", "layer", ("fc1",)))
    assert table.plain() == {
        "kind": "table",
        "caption": "Layers.",
        "columns": ["layer", "angle"],
        "rows": [["fc1", "90°"]],
        "labels": 1,
    }
    terms = Terms((Term("S", (("unit", "1"),)),)).plain()
    assert json.loads(json.dumps(terms)) == {"kind": "terms", "terms": [{"name": "S", "details": [["unit", "1"]]}]}
    figure = Figure((Panel(figsize=(2, 1)),), "A.", "B.", table, "empty").plain()
    assert [panel["width"] for panel in figure["panels"]] == [2.0]
    assert figure.keys() == {"kind", "name", "caption", "alt", "panels", "beside"}
