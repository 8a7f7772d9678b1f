"""What other packages add to wtdiag: the package in examples/, installed and used, and packages that are at fault."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from wtdiag.diagnostics.analysis.survey import Survey
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.diagnostics.findings.kinds.base import Kind
from wtdiag.probes import PROBES, Probe
from wtdiag.probes.records.schema import LayerArrays, Snapshot, snapshot_path, write_snapshot
from wtdiag.trainers.conformance import conform  # noqa: F401  (enters the checks)
from wtdiag.trainers.conformance.requirements import CHECKS, PASSED
from wtdiag.trainers.conformance.subject import Subject
from wtdiag.trainers.rules import RULES

ROOT = Path(__file__).parents[2]
BROKEN = {
    "broken_import": ("import no_such_module\n", "wtdiag.rules", "a = broken_import:A"),
    "taken_name": (
        "from wtdiag.trainers.rules.base import register\n"
        "from wtdiag.trainers.rules.lillicrap2016 import FeedbackAlignment\n"
        "register(FeedbackAlignment)\n",
        "wtdiag.rules",
        "b = taken_name:FeedbackAlignment",
    ),
    "no_rule": ("class C: pass\n", "wtdiag.rules", "c = no_rule:C"),
    "misspelt": (
        "from wtdiag.probes import probe\n"
        "@probe(units='1', long_name='x', equation='x', reference='x', subject='forward')\n"
        "def misspelt_share(forwrad): return 0.0\n",
        "wtdiag.probes",
        "d = misspelt:misspelt_share",
    ),
    "needs_nothing_known": (
        "from wtdiag.diagnostics.findings.kinds.base import kind\n"
        "@kind('odd', meaning='', advice='', equation='', reference='', needs=('no_such_measure',))\n"
        "def odd(view): yield from ()\n",
        "wtdiag.findings",
        "e = needs_nothing_known:odd",
    ),
}
SCRIPT = """
import contextlib, io, json, sys
import wtdiag

def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            wtdiag.main(words)
        except SystemExit as end:
            code = end.code or 0
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "loaded": "decoder_feedback" in sys.modules}

found = {
    "help": run("--help"),
    "rules": run("rules"),
    "probes": run("probes"),
    "train": run(*"train --rule decoder --depth 3 --data digits --epochs 1 --snapshots 2 --out run".split()),
    "analyze": run(*"analyze run --format html".split()),
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """What the command line prints where the example and some broken packages are installed."""
    folder = tmp_path_factory.mktemp("packages")
    source = shutil.copytree(ROOT / "examples" / "decoder_feedback", folder / "source")
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", folder / "site"]
    subprocess.run([sys.executable, "-m", "pip", *install, source], check=True)
    for name, (text, group, point) in BROKEN.items():
        (folder / "site" / f"{name}.py").write_text(text)
        about = folder / "site" / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{group}]\n{point}\n")
    path = os.pathsep.join([str(folder / "site"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"folder": folder}


@pytest.mark.slow
def test_a_package_costs_nothing_before_it_is_used(used):
    assert used["help"]["code"] == 0
    assert not used["help"]["loaded"]
    assert used["rules"]["loaded"]


@pytest.mark.slow
def test_what_an_installed_package_adds_is_listed_trained_measured_and_found(used):
    assert "\ndecoder  Feedback that reconstructs\n    ∂B = − rate" in used["rules"]["out"]
    assert "\nsmall_entries  share of small entries of the feedback weights [1]\n" in used["probes"]["out"]
    assert [used[step]["code"] for step in ("train", "analyze")] == [0, 0], used
    analysis = xr.open_dataset(used["folder"] / "run" / "analysis.nc", engine="h5netcdf")
    share = analysis["small_entries"]
    assert share.attrs["upper_bound"] == 1.0
    assert ((share >= 0) & (share <= 1)).all()
    assert np.isfinite(analysis["rest_distance"]).any()  # its learning has a law without a line of its own
    findings = json.loads((used["folder"] / "run" / "findings.json").read_text())["findings"]
    nothing = [each for each in findings if each["kind"] == "nothing-wrong"]
    assert not nothing or "sparse-feedback" in nothing[0]["summary"]


@pytest.mark.slow
def test_a_package_at_fault_is_one_line_and_the_rest_goes_on(used):
    left_out = "wtdiag: warning: wtdiag.{}: the entry point {!r} of {} is left out: {}"
    assert used["rules"]["err"].splitlines() == [
        left_out.format("rules", "a", "broken_import", "ModuleNotFoundError: No module named 'no_such_module'"),
        left_out.format("rules", "c", "no_rule", "no_rule:C is not a rule; expected one decorated with @register"),
        left_out.format("rules", "b", "taken_name", "rule: the name 'fa' is taken; expected one of its own"),
    ]
    (line,) = used["probes"]["err"].splitlines()
    assert line.startswith(
        left_out.format("probes", "d", "misspelt", "misspelt_share: parameter: 'forwrad' is not known; did you mean")
    )
    kinds = [line for line in used["analyze"]["err"].splitlines() if "wtdiag.findings" in line]
    assert len(kinds) == 1
    assert kinds[0].startswith(
        left_out.format("findings", "e", "needs_nothing_known", "odd: needs: 'no_such_measure' is not known")
    )


@pytest.mark.parametrize("check", ["description", "gradient-of-loss", "no-transport", "feedback-moves", "second-order"])
def test_the_rule_of_the_example_conforms(check, monkeypatch):
    monkeypatch.setattr(RULES, "entered", dict(RULES))
    monkeypatch.syspath_prepend(ROOT / "examples" / "decoder_feedback")
    try:
        module = importlib.import_module("decoder_feedback.rule")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "decoder_feedback"]:
            del sys.modules[name]
    monkeypatch.setitem(sys.modules, "decoder_feedback.rule", module)  # pickles name it
    verdict = CHECKS[check](Subject(module.Decoder()))
    assert verdict.outcome == PASSED, verdict.seen


def test_a_probe_of_another_package_that_raises_leaves_the_others(tmp_path, monkeypatch):
    about = {"units": "1", "long_name": "", "equation": "", "reference": "", "subject": "forward"}

    def failing(forward):
        return 1 / 0

    def many(forward):
        return np.ones(3)

    for function in (failing, many):
        name = function.__name__
        monkeypatch.setitem(PROBES.entered, name, Probe(name=name, function=function, **about))
    (tmp_path / "snapshots").mkdir()
    layer = LayerArrays(np.eye(2), np.ones((2, 2)), kind="Linear", index=0)
    write_snapshot(snapshot_path(tmp_path, 0), Snapshot(0, {"fc": layer}))
    with pytest.warns(UserWarning) as seen:  # noqa: PT030  (which ones is asked below)
        (values,) = Survey(tmp_path, ("failing", "weight_angle", "many"), ("fc",))(0).values
    assert values.keys() == {"weight_angle", "weight_angle_null", "weight_angle_null_sd"}
    assert sorted(str(each.message) for each in seen) == [
        f"fc: the probe 'failing' of {__name__} is left out: ZeroDivisionError: division by zero",
        f"fc: the probe 'many' of {__name__} is left out: has 1 dims; expected 0",
    ]


def test_a_finding_of_another_package_that_raises_leaves_the_others(monkeypatch):
    def failing(view):
        raise KeyError("x")

    odd = Kind("odd", "", ("",), "", "", failing, (), frozenset(), frozenset(), 0)
    monkeypatch.setitem(KINDS.entered, "odd", odd)
    angle = xr.DataArray([[150.0], [150.0]], dims=("step", "layer"))
    analysis = xr.Dataset({"weight_angle": angle}, {"step": [0, 100], "layer": ["fc"]})
    with pytest.warns(UserWarning, match=f"^the finding 'odd' of {__name__} is left out: KeyError: 'x'$"):
        found = diagnose(analysis, {}, pd.DataFrame())
    assert [finding.kind for finding in found] == ["sign-flip"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "faa"), "rule: 'faa' is not known; did you mean 'fa'?"),
        (("check", "nowhere:X"), "rule: nowhere cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
        (("check", "odd_code:X"), "rule: odd_code cannot be imported (ZeroDivisionError: division by zero)"),
        (("check", "wtdiag.trainers.rules.base:Nothing"), "rule: wtdiag.trainers.rules.base has no 'Nothing'"),
        (("check", "collections:Counter"), "rule: <class 'collections.Counter'> is not a rule; expected a class"),
        (("check", "wtdiag.trainers.rules.base:Rule"), "rule: Rule: name is None; expected a text"),
        (("check", ":X"), "rule: ':X': expected module:name"),
        (("check", "fa", "-c", "scale=0"), "fa: scale: expected a positive number, got 0.0"),
        (("check", "fa", "-c", "decay=1"), "coefficient of fa: 'decay' is not known"),
        (("audit", "nowhere:f"), "function: nowhere cannot be imported"),
        (("audit", "math:pi"), "function: math:pi is 3.14159"),
        (("audit", "networks:nothing"), "function: networks:nothing returned None; expected a network, its loss"),
        (("audit", "networks:raises"), "function: networks:raises failed (ZeroDivisionError: division by zero)"),
    ],
)
def test_bad_input_ends_in_one_line(run, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_code.py").write_text("1 / 0\n")
    (tmp_path / "networks.py").write_text("def nothing(): pass\ndef raises(): 1 / 0\n")
    monkeypatch.delitem(sys.modules, "networks", raising=False)
    before = list(sys.path)
    code, printed, error = run(*words)
    assert (code, printed) == (2, "")
    assert error.startswith(f"wtdiag: {message}")
    assert error.count("\n") == 1
    assert sys.path == before


NETWORK = """
import torch
from torch import nn

def plain():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    return net, lambda: net(torch.ones(3, 4)).square().sum()

def free():
    net, loss = plain()
    feedback = torch.randn(2, 5)
    net[2].register_full_backward_hook(lambda layer, sent, error: (error[0] @ feedback,))
    return net, loss
"""


def test_the_audit_says_what_carries_the_error_and_fails_where_it_is_the_weights(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audited.py").write_text(NETWORK)
    code, printed, _ = run("audit", "audited:plain")
    assert code == 1
    assert "2  (Linear)  backprop; its error path sees W\n1 of 1 layers that send" in printed
    code, printed, _ = run("audit", "audited:free")
    assert code == 0
    assert "2  (Linear)  fixed feedback; its error path does not see W\n    B: hook of 2: feedback\n0 of 1" in printed
    assert max(map(len, printed.splitlines())) <= 80
