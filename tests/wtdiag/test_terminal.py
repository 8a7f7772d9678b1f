"""What reaches the terminal: any encoding, streams that refuse, and files that hold more than text."""

import io
import json
import os
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
from rich.table import Table

import wtdiag
from wtdiag.cli.console import Screen, tracked
from wtdiag.cli.terminal import complain, print_comparison, print_entry, say
from wtdiag.diagnostics.findings.finding import Finding
from wtdiag.probes.errors import InputError

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def end_of(*words):
    with pytest.raises(SystemExit) as end:
        wtdiag.main([str(word) for word in words])
    return end.value.code or 0


def table_of(rule):
    row = {"conditions": "data digits", "reference": "bp", "rule": rule, "measure": "weight_angle", "mean": 1.0}
    more = {"reference_mean": 2.0, "difference": -1.0, "low": -1.5, "high": -0.5, "n": 3, "diverged": 0}
    table = pd.DataFrame([{**row, **more, "units": "degree"}])
    table.attrs["unpaired"] = {}
    return table


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_encoding_will_do(monkeypatch, encoding):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert end_of("rules") == 0
    assert end_of("compare", "nowhere-重み-\udce9") == 2
    say("path/重み-\udce9")
    print_comparison(table_of("rule of mine ≥ 90°"))
    for stream in (out, err):
        stream.flush()
    printed = out.buffer.getvalue().decode(encoding)
    assert "Backpropagation" in printed
    assert ("≥" if encoding == "utf-8" else r"\u2265") in printed
    assert ("重み" if encoding == "utf-8" else r"\u91cd\u307f") in printed
    assert err.buffer.getvalue().decode(encoding).startswith("wtdiag: nowhere-")


def test_full_output_is_one_line(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert end_of("rules") == 2
    assert capsys.readouterr().err == "wtdiag: standard output: cannot be written (No space left on device)\n"
    full = open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(InputError, match=r"^standard output: cannot be written"):
        Screen().print(Table("column"))
    with pytest.raises(OSError, match="No space"):
        full.close()


def test_closed_output_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert end_of("rules") == 2
    assert capsys.readouterr().err == "wtdiag: standard output: cannot be written (Bad file descriptor)\n"


def test_a_reader_who_has_seen_enough_is_no_error(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert end_of("rules") == 0
    assert capsys.readouterr().err == ""


def test_nothing_from_a_file_steers_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    finding = Finding(
        kind="sign-flip" + ESCAPE, severity="low", layer="fc1" + ESCAPE, first_step=0, last_step=0, summary=ESCAPE,
        confidence=1.0, evidence=(), meaning="", advice=(ESCAPE,), equation="", reference="",
    )  # fmt: skip
    from wtdiag.cli.terminal import print_findings

    print_findings([finding], Path("run" + ESCAPE))
    print_comparison(table_of(ESCAPE))
    print_entry("name" + ESCAPE, "title" + ESCAPE, ESCAPE)
    complain(ESCAPE + "two\nlines")
    assert list(tracked([0, 1], "x[/y]:smile:" + ESCAPE, Screen(stderr=True))) == [0, 1]
    printed = "".join(capsys.readouterr())
    assert "\x1b]" not in printed
    assert "\x1b[2J" not in printed
    assert "\x07" not in printed
    assert "two lines\n" in printed
    assert "x[/y]:smile:" in printed


def test_status_and_name_of_a_run_are_filtered(tmp_path, capsys):
    run = tmp_path / f"run{ESCAPE}"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"status": "finished", "settings": {"rule": ESCAPE}}))
    for words in (["train", "--resume", "--out", run], ["analyze", run], ["compare", run], ["report", run]):
        assert end_of(*words) == 2
        lines = "".join(capsys.readouterr()).splitlines()
        assert lines
        assert all(line.startswith("wtdiag: ") and line.isprintable() for line in lines)


def test_messages_are_shortened(capsys):
    complain("x" * 10_000 + "end")
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 2100
    assert line.endswith("end")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--out"),
        ("train", "--resume", "--out"),
        ("train", "--config"),
        ("analyze",),
        ("compare",),
        ("report",),
        ("study",),
        ("study", "small/transfer", "--out"),
        ("sweep", "--search", "lr=0.1,0.2", "--out"),
        ("transfer", "--to", "depth=8"),
    ],
)
def test_a_path_that_is_too_long_is_one_line(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert end_of(*words, "x" * 300) == 2
    message = capsys.readouterr().err
    assert "too long" in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_nul_in_a_path_is_one_line(tmp_path):
    for call in (wtdiag.open_run, wtdiag.compare, wtdiag.diagnose, wtdiag.report):
        with pytest.raises(InputError, match=r"^run: .*a�b: embedded null byte"):
            call(tmp_path / "a\0b")


def test_a_warning_is_one_line_that_says_nothing_of_the_code(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert (
            end_of(
                "train", "--rule", "kp", "--optimizer", "adam", "--depth", 2, "--epochs", 0.1, "--out", tmp_path / "run"
            )
            == 0
        )
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert lines
    assert all(line.startswith("wtdiag: warning: kp: Linear(") and "decay" in line for line in lines)
