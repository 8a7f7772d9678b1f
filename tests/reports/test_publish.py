import json
import subprocess
import sys

import click
import numpy as np
import pytest

import wtdiag
from tests.reports.runs import analysis, finding, write_run
from wtdiag import reports
from wtdiag.diagnostics.analysis.analyze import analyze, write_analysis
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import LayerArrays, Snapshot, open_run, snapshot_path, write_json, write_snapshot
from wtdiag.reports.run.sources import load
from wtdiag.reports.run.thin import thin


def test_one_run_is_reported_in_its_directory(light):
    assert reports.write([light]) == [light / "report.html", light / "report.pdf"]
    assert (light / "report.html").read_text().startswith("<!doctype html>")
    assert (light / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_reports_are_reproducible(light, tmp_path):
    first = [path.read_bytes() for path in reports.write([light])]
    again = [path.read_bytes() for path in reports.write([light], out=tmp_path / "new" / "folder")]
    assert first == again


def test_several_runs_are_compared_beside_them(tmp_path):
    runs = [
        write_run(tmp_path / "runs" / rule, analysis(3, rule=rule)[["weight_angle"]], rule=rule)
        for rule in ("fa", "kp")
    ]
    assert reports.write(runs, formats=["html"]) == [tmp_path / "runs" / "comparison.html"]
    assert "Comparison of fa, kp" in (tmp_path / "runs" / "comparison.html").read_text()
    assert not (tmp_path / "runs" / "comparison.pdf").exists()


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [write_run(tmp_path / seed / "fa", analysis(2)[["weight_angle"]], rule="fa") for seed in ("s0", "s1")]
    with pytest.raises(InputError, match=r"^out: not given, and the runs lie in 2 folders"):
        reports.write(runs)
    page = reports.write(runs, out=tmp_path, formats=["html"])[0].read_text()
    assert "Run s0/fa" in page
    assert "Run s1/fa" in page


def test_what_analyze_writes_can_be_reported(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "snapshots").mkdir()
    write_json(tmp_path / "config.json", {"status": "interrupted", "rule": {"name": "drtp"}})
    for step in (0, 10):
        conv = LayerArrays(
            rng.normal(size=(4, 1, 3, 3)), rng.normal(size=(4, 1, 3, 3)), "Conv2d", 0, carries_error=False
        )
        direct = LayerArrays(rng.normal(size=(6, 4)), rng.normal(size=(3, 4)), "Linear", 1, direct=True)
        last = LayerArrays(rng.normal(size=(3, 6)), None, "Linear", 2)
        layers = {"conv": conv, "hidden": direct, "head": last}
        write_snapshot(snapshot_path(tmp_path, step), Snapshot(step, layers))
    write_analysis(analyze(open_run(tmp_path)), tmp_path / "analysis.nc")
    html, pdf = reports.write([tmp_path])
    page = html.read_text()
    assert "The run was interrupted. No test accuracy was recorded." in page
    assert (
        "At step 10, in the one layer that carries error and can be compared, the feedback lies on average 0.0°" in page
    )
    assert pdf.exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: (run / "analysis.nc").unlink(), r"there is no analysis; .*`wtdiag analyze .*ia6`"),
        (lambda run: (run / "analysis.nc").write_bytes(b"CDF"), r"nc: .*; `wtdiag analyze .*` writes it again$"),
        (lambda run: cut(run / "analysis.nc"), r"analysis.nc: is not an analysis file"),
        (lambda run: (run / "findings.json").write_text("{"), r"is not JSON .*; `wtdiag analyze .*` writes it again$"),
        (lambda run: (run / "findings.json").write_text("{}"), r"format 3; `wtdiag analyze` writes them$"),
        (lambda run: replace(run, analysis().drop_vars("layer")), r"has no coordinate 'layer'"),
        (lambda run: replace(run, analysis().isel(step=[])), r"has no coordinate 'step' with values"),
        (lambda run: replace(run, analysis(1).assign(x=("layer", ["a"]))), r": x holds .* expected numbers"),
        (lambda run: replace(run, analysis(1).assign(x=("layer", [0.0]))), r": x lacks the dim step; `wtdiag analyze"),
        (lambda run: (run / "config.json").write_text("{"), r"config.json: is not JSON"),
        (lambda run: (run / "metrics.jsonl").write_text("{\n{}\n"), r"metrics.jsonl: line 1 is not JSON"),
        (lambda run: (run / "report.html").mkdir(), r"report.html: cannot be written"),
    ],
)  # fmt: skip
def test_what_cannot_be_reported_is_named_in_one_line(light, spoil, says):
    spoil(light)
    with pytest.raises(InputError, match=says) as caught:
        reports.write([light], formats=["html"])
    assert "\n" not in str(caught.value)
    assert str(light) in str(caught.value)


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def replace(run, dataset):
    (run / "analysis.nc").unlink()
    dataset.to_netcdf(run / "analysis.nc", engine="h5netcdf")


def test_a_long_run_is_shown_at_the_snapshots_that_matter(tmp_path):
    data = analysis(100, 300, log_steps=False)[["weight_angle", "step_size_number"]]
    data.step_size_number[:] = 0.5
    data.step_size_number[123, 7], data.step_size_number[124, 8] = 1.5, 2.5
    path = write_run(tmp_path / "r", data, findings=[finding(first_step=1700, last_step=2900)])
    source = load(path)
    shown = thin(source).analysis.step.values.tolist()
    assert {0, 1700, 2900, 12300, 12400, 29900} <= set(shown)
    assert 60 <= len(shown) <= 66
    page = reports.write([path], formats=["html"])[0].read_text()
    assert f"shows {len(shown)} of 300 snapshots" in page
    assert "unstable from step 12300, first in fc8" in page
    assert len(page) < 5e6


def test_bad_arguments(run):
    with pytest.raises(InputError, match=r"^runs: none given"):
        reports.write([])
    with pytest.raises(InputError, match=r"^formats: 'docx' is not known"):
        reports.write([run], formats=["docx"])
    with pytest.raises(InputError, match=r"config.json/sub: cannot hold the report \(Not a directory\)"):
        reports.write([run], out=run / "config.json" / "sub")


def test_failed_report_leaves_the_old_one(light):
    reports.write([light], formats=["html"])
    old = (light / "report.html").read_bytes()
    (light / "analysis.nc").write_bytes(b"")
    with pytest.raises(InputError, match=r"analysis\.nc"):
        reports.write([light], formats=["html"])
    assert (light / "report.html").read_bytes() == old


def test_run_without_metrics_or_settings_is_reported(light):
    (light / "metrics.jsonl").unlink()
    (light / "config.json").write_text(json.dumps({"rule": None, "diverged": "yes", "settings": []}))
    page = reports.write([light], formats=["html"])[0].read_text()
    assert "Feedback on average" in page
    assert "unknown:" not in page
    assert "Accuracy and loss</h2>" not in page


def test_odd_metrics_are_passed_over(light):
    lines = [
        {"step": 0, "loss": "NaN?"},
        {"step": 1, "loss": [1]},
        {"event": "jump"},
        {"step": 2, "loss": 0.25},
    ]
    (light / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "loss ends at 0.250 (step 2)" in reports.write([light], formats=["html"])[0].read_text()


def test_infinity_is_no_value(tmp_path):
    data = analysis(3)
    data.weight_angle[-1, 1] = np.inf
    loaded = load(write_run(tmp_path / "r", data)).analysis
    assert np.isnan(loaded.weight_angle[-1, 1])
    assert loaded.weight_angle.attrs.items() >= data.weight_angle.attrs.items()


def test_command_writes_the_report_again_without_snapshots_or_torch(light):
    code = "import sys; from wtdiag.cli import cli; "
    code += f"cli(['report', {str(light)!r}, '--format', 'html'], standalone_mode=False)"
    code += "; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{light / 'report.html'}\n")
    assert not (light / "snapshots").exists()


def test_command_shows_the_report(light, tmp_path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(click, "launch", shown.append)
    with pytest.raises(SystemExit) as ended:
        wtdiag.main(["report", str(light), "--format", "html", "--out", str(tmp_path), "--open"])
    assert not ended.value.code
    assert shown == [str(tmp_path / "report.html")] == capsys.readouterr().out.split()


def test_findings_that_cannot_be_read_are_named(light):
    (light / "findings.json").write_text('{"format": 1, "findings": [{}]}')
    with pytest.raises(InputError, match=r"findings.json: finding 1"):
        reports.write([light], formats=["html"])
