"""The page of a transfer: the matrix against brute force, and what it says."""

import numpy as np
import pytest

from tests.reports.studied import EVIL, blocks, ended, put, transfer
from wtdiag.diagnostics.comparison.intervals import of_crossed_mean
from wtdiag.probes.errors import InputError
from wtdiag.reports.document.content import Figure, Table
from wtdiag.reports.publish import publish
from wtdiag.reports.study import transfer_page as page
from wtdiag.reports.study.shared import methods_of


def matrix(found):
    (figure,) = blocks(page.sections(found, methods_of(found)), Figure)
    return figure


def cells(figure):
    return [text.get_text() for text in figure.panels[0].axes[0].texts]


def test_the_matrix_is_accuracy_relative_to_backprops_best_there_with_its_interval():
    found = transfer()
    ratio = found["test_accuracy"] / found["test_accuracy"].sel(rule="bp", configuration=0)
    texts = []
    for rule in found["rule"].values:
        for architecture in found["architecture"].values:
            table = ratio.sel(rule=rule, architecture=architecture).transpose("configuration", "seed").values
            low, high = of_crossed_mean(table)
            texts.append(f"{table.mean():.2f}\n[{low:.2f}, {high:.2f}]")
    figure = matrix(found)
    assert cells(figure) == texts
    colours = figure.panels[0].axes[0].collections[0].get_array()
    np.testing.assert_allclose(
        colours.ravel(), ratio.mean(("configuration", "seed")).transpose("rule", ...).values.ravel()
    )
    heads = [label.get_text() for label in figure.panels[0].axes[0].get_xticklabels()]
    assert heads == ["source", "deep", "conv"]
    assert "The source is mlp 4." in figure.caption


def test_one_seed_has_no_interval_and_what_is_missing_is_grey():
    found = transfer(seeds=1)
    ended(found, "failed", "out of memory", rule="ia", configuration=0, architecture="conv", seed=0)
    figure = matrix(found)
    assert "One seed: no interval." in figure.caption
    assert cells(figure)[-1] == "–"
    assert not any("[" in text for text in cells(figure))
    assert figure.data.rows[-1] == ("ia", "conv", "–", "–", "–", "0", "1")


def test_numbers_are_readable_on_every_colour():
    (axes, *_) = matrix(transfer()).panels[0].axes
    values = axes.collections[0].get_array().ravel()
    assert values.size > 0
    for text, value in zip(axes.texts, values, strict=True):
        assert text.get_color() in ("#101216", "#fbfcfe")
        assert (text.get_color() == "#101216") == (value > 0.75)


def test_every_configuration_is_told_with_its_parameters():
    found = transfer()
    (table,) = (each for each in blocks(page.sections(found, methods_of(found)), Table))
    assert table.columns == ("rule", "rank", "lr", "source", "deep", "conv")
    row = table.rows[3]  # the second of wm-reg
    mean = 100 * found["test_accuracy"].sel(rule="wm-reg", configuration=1).mean("seed")
    assert row[:2] == ("wm-reg", "2")
    assert row[3:] == tuple(f"{value:.1f}" for value in mean.values)


def test_the_verdict_names_who_keeps_most_and_least():
    said = page.verdict(transfer())
    assert "on conv, wm-reg keeps 88\xa0% and ia 77\xa0%" in said
    assert "mlp 4" not in said
    alone = transfer(rules=("bp",))
    assert page.verdict(alone).startswith("No configuration has finished on another architecture")
    without = transfer(rules=("ia",))
    assert page.verdict(without).startswith("No configuration has finished on another architecture")
    assert not blocks(page.sections(without, methods_of(without)), Figure)


def test_both_pages_are_written_with_texts_as_texts(tmp_path):
    found = transfer(EVIL, ("<u>", "$t$" + "z" * 60))
    ended(found, "failed", "<b>#panic(1)", rule="bp", configuration=1, architecture="<u>", seed=0)
    folder = put(found, tmp_path)
    assert publish(page.report(folder), folder, "transfer") == [tmp_path / "transfer.html", tmp_path / "transfer.pdf"]
    text = (tmp_path / "transfer.html").read_text()
    assert "<script>alert" not in text
    assert "<u>" not in text
    assert "failed: &lt;b&gt;#panic(1)" in text
    assert (tmp_path / "transfer.pdf").read_bytes().startswith(b"%PDF-")


def test_a_large_matrix_fits_its_page():
    rules = tuple(f"rule{i}" for i in range(30))
    found = transfer(("bp", *rules), tuple(f"network {i}" for i in range(10)), seeds=1, top=1)
    figure = matrix(found)
    width, height = figure.panels[0].get_size_inches()
    assert width <= 6.8
    assert height <= 8.5


def test_only_a_transfer_is_taken(tmp_path):
    with pytest.raises(InputError, match="there are no results"):
        page.report(tmp_path)
