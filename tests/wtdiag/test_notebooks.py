"""What a notebook shows of runs, findings, rules and comparisons: HTML in which every text is escaped."""

from html.parser import HTMLParser

import numpy as np

import wtdiag
from wtdiag import RULES, analyze, compare, diagnose, open_run, record

EVIL = "<script>alert(1)</script>"


class Balanced(HTMLParser):
    """A parser that requires every element to be closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text = [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def run(path, rule, accuracy):
    w, b = np.eye(4) + 1.0, np.arange(16.0).reshape(4, 4)
    config = {"rule": {"name": rule}, "settings": {"seed": 0, "data": EVIL}}
    for step in (0, 5, 10):
        record(path, step, {EVIL: (w * (1 + step), -b)}, test_accuracy=accuracy, config=config)
    return open_run(path)


def test_runs_findings_rules_and_comparisons_show_themselves(tmp_path):
    ours = run(tmp_path / "own", "own", 0.5)
    run(tmp_path / "bp", "bp", 0.75)
    shown = Balanced(ours._repr_html_()).text
    assert "own" in shown
    assert "recorded" in shown
    assert "3, steps 0 to 10" in shown
    assert EVIL in shown
    found = diagnose(ours, analyze(ours))
    text = Balanced(found._repr_html_()).text
    assert found[0].summary in text
    assert f"{found[0].severity}: {found[0].kind}" in text
    assert isinstance(found, tuple)
    table = compare(tmp_path)
    text = Balanced(table._repr_html_()).text
    assert "reference: bp" in text
    assert "-0.25" in text
    assert type(table[table.measure == "test_accuracy"]).__name__ == "DataFrame"
    alone = compare(tmp_path / "own")
    assert "is not compared: no other run has its settings and seed" in Balanced(alone._repr_html_()).text
    for name in RULES:
        assert RULES[name].title in Balanced(wtdiag.rule(name)._repr_html_()).text
