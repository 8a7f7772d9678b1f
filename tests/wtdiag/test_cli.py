"""The command line as a user types it: good input, bad input, and what is left on the disk."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

import wtdiag
from wtdiag.diagnostics.analysis.costs import COSTS
from wtdiag.diagnostics.analysis.derive import DERIVED
from wtdiag.diagnostics.findings.finding import read_findings
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.probes.errors import InputError

QUICK = ("--epochs", 0.5, "--width", 16, "--snapshots", 3)


def test_train_and_analyze(run, tmp_path):
    out = tmp_path / "run"
    code, printed, _ = run("train", "--rule", "kp", *QUICK, "--out", out)
    assert code == 0
    assert "finished" in printed
    assert {path.name for path in out.iterdir()} == {
        "checkpoint.pt", "config.json", "metrics.jsonl", "probe_batch.nc", "snapshots",
    }  # fmt: skip
    code, printed, _ = run("analyze", out)
    assert code == 0
    files = ("analysis.nc", "findings.json", "report.html", "report.pdf")
    assert printed.splitlines()[-4:] == [str(out / name) for name in files]
    with xr.open_dataset(out / "analysis.nc") as analysis:
        analysis.load()
    assert analysis.weight_angle.dims == ("step", "layer")
    assert analysis.weight_angle.attrs["units"] == "degree"
    everywhere = {"error_angle", "error_angle_product", "log_norm_ratio_sum"}
    assert all(analysis[name].notnull().all() for name in everywhere)
    assert analysis[["attribution_angle", "attribution_loss"]].isel(step=-1).notnull().to_array().all()
    assert {"gain_elasticity", "step_size_number", "predicted_angle", "activation_spectrum"} <= set(analysis)
    findings = wtdiag.diagnose(out)
    assert findings == read_findings(out / "findings.json") == wtdiag.diagnose(wtdiag.open_run(out), analysis)
    assert findings
    assert all(isinstance(finding, wtdiag.Finding) for finding in findings)
    shown = " ".join(" ".join(printed.splitlines()[:-4]).split())
    first = {(finding.severity, finding.kind): finding for finding in reversed(findings)}
    for finding in first.values():  # of each kind the first in full, the others by their layer
        assert f"{finding.kind}  {finding.layer or 'all layers'}, step".replace("  ", " ") in shown
        assert " ".join(finding.summary.split()) in shown
    assert all((finding.layer or "all layers") in shown for finding in findings)
    assert max(len(line) for line in printed.splitlines()[:-4] if str(out) not in line) <= 80  # a path is not broken


def test_options_that_are_off_or_zero_go_before_the_file(run, tmp_path):
    (tmp_path / "mine.toml").write_text('rule = "fa"\nbatch_norm = true\nwarmup = 0.1\n')
    words = (*QUICK, "--config", tmp_path / "mine.toml", "--no-batch-norm", "--warmup", 0, "--out", tmp_path / "run")
    assert run("train", *words)[0] == 0
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert (settings["rule"], settings["batch_norm"], settings["warmup"]) == ("fa", False, 0)


def test_several_rules_train_as_each_would_alone(run, tmp_path):
    code, printed, _ = run("train", "--rule", "wm", "--rule", "brsf", *QUICK, "--out", tmp_path / "both")
    assert code == 0
    assert len(printed.splitlines()) == 3
    assert run("train", "--rule", "brsf", *QUICK, "--out", tmp_path / "alone")[0] == 0
    alone, both = (
        {path.name: path.read_bytes() for path in (tmp_path / run / "snapshots").iterdir()}
        for run in ("alone", "both/brsf")
    )
    assert len(alone) > 1
    assert alone == both


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Backprop, feedback alignment and Kolen-Pollack, of one seed."""
    out = tmp_path_factory.mktemp("runs") / "three"
    rules = [word for rule in ("bp", "fa", "kp") for word in ("--rule", rule)]
    with pytest.raises(SystemExit):
        wtdiag.main(["train", *rules, *map(str, QUICK), "--out", str(out)])
    return out


def test_compare(run, three, tmp_path):
    out = tmp_path / "differences.csv"
    code, printed, message = run("compare", *sorted(three.iterdir()), "--out", out)
    assert code == 0
    assert message == ""
    assert printed.splitlines()[-1] == str(out)
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    table = pd.read_csv(out, dtype={"units": str})
    compared = wtdiag.compare(sorted(three.iterdir()))
    pd.testing.assert_frame_equal(table, compared, check_frame_type=False)
    assert table.rule.unique().tolist() == ["fa", "kp"]
    for row in table.itertuples():
        said = f"{100 * row.difference:.1f} points" if row.measure == "test_accuracy" else f"{row.difference:.3f}"
        assert said in printed
    code, _, message = run("compare", *sorted(three.iterdir()), "--out", out)
    assert code == 2
    assert "differences.csv exists" in message
    code, printed, message = run("compare", three / "fa", "--out", tmp_path / "none.csv")
    assert code == 2
    assert printed == ""
    assert "fa is not compared: no other run has its settings and seed" in message
    assert not (tmp_path / "none.csv").exists()


def test_several_runs_are_compared_once_they_are_analysed(run, three):
    runs = three / "bp", three / "kp", three / "bp"
    code, printed, _ = run("analyze", "--format", "html", *runs)
    assert code == 0
    assert printed.count("reference: bp") == 1
    assert re.search(r"^kp +weight angle +[\d.]+°", printed, re.MULTILINE)
    assert printed.splitlines()[0] == str(three / "bp")
    assert printed.splitlines()[-1] == str(three / "comparison.html")
    told = " ".join(printed.splitlines())
    assert re.search(
        r" bp has a test accuracy of [\d.]+ %; kp is \S+ points \S+ The error of the first layer is at", told
    )
    files = ("analysis.nc", "findings.json", "report.html")
    written = [f"{three}/{name}/{file}" for name in ("bp", "kp") for file in files]
    assert [line for line in printed.splitlines() if line in written] == written
    assert {"weight_angle", "step_size_number"} <= set(xr.load_dataset(three / "kp" / "analysis.nc"))


def test_a_probe_that_takes_long_is_measured_beside_the_others(run, three):
    assert run("analyze", "--format", "html", "--probe", "descent_eigenvalue", three / "kp")[0] == 0
    assert {"weight_angle", "descent_eigenvalue"} <= set(xr.load_dataset(three / "kp" / "analysis.nc"))


def test_a_folder_stands_for_its_runs_and_a_comparison_is_passed_over(run, three):
    (three / "comparison.pdf").touch()
    code, printed, _ = run("compare", three)
    assert code == 0
    assert run("compare", *sorted(three.iterdir()))[:2] == (code, printed)
    runs = sorted(path for path in three.iterdir() if path.is_dir())
    for folder in (three, str(three), [three]):
        pd.testing.assert_frame_equal(wtdiag.compare(folder), wtdiag.compare(runs))


def test_an_interrupted_analysis_keeps_what_it_measured(run, three, monkeypatch):
    import wtdiag.diagnostics.findings.diagnose
    from wtdiag import reports

    for name in ("analysis.nc", "findings.json"):
        (three / "fa" / name).unlink(missing_ok=True)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wtdiag.diagnostics.findings.diagnose, "diagnose", interrupt)
        assert run("analyze", "--probe", "weight_angle", three / "fa")[0] == 130
    assert (three / "fa" / "analysis.nc").exists()
    assert not (three / "fa" / "findings.json").exists()
    monkeypatch.setattr(reports, "write", interrupt)
    code, _, _ = run("analyze", "--probe", "weight_angle", three / "fa")
    assert code == 130
    assert read_findings(three / "fa" / "findings.json")
    assert "weight_angle" in xr.load_dataset(three / "fa" / "analysis.nc")


def test_all_that_is_written_about_a_run_goes_into_out(run, three, tmp_path):
    source = tmp_path / "run"
    shutil.copytree(three / "bp", source, ignore=shutil.ignore_patterns("analysis.nc", "findings.json", "report.*"))
    before = {path: path.stat().st_mtime_ns for path in [source, *source.rglob("*")]}
    code, printed, _ = run("analyze", source, "--out", tmp_path / "new" / "out", "--format", "html")
    assert code == 0
    files = ("analysis.nc", "findings.json", "report.html")
    assert printed.splitlines()[-3:] == [str(tmp_path / "new" / "out" / name) for name in files]
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == set(files)
    assert {path: path.stat().st_mtime_ns for path in [source, *source.rglob("*")]} == before


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_measured(run, three, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["wtdiag.cli.analyze"], "measure", None)  # calling it would end in a TypeError
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "out", "/proc/out"):  # /proc refuses root too
        code, _, message = run("analyze", three / "bp", "--out", out)
        assert code == 2
        assert message.startswith(f"wtdiag: {out}: cannot be written into (")
        assert message.count("\n") == 1


def test_a_run_that_is_not_analysed_has_no_findings(three, tmp_path):
    shutil.copytree(three / "bp", tmp_path / "run", ignore=shutil.ignore_patterns("analysis.nc"))
    with pytest.raises(InputError, match=r"analysis.nc: there is no analysis; expected one, as `wtdiag analyze .*run`"):
        wtdiag.diagnose(tmp_path / "run")


def unmeasured(trained, place):
    """Return a copy of a run without an analysis, whose values would be used again."""
    return shutil.copytree(trained, place, ignore=shutil.ignore_patterns("analysis.nc"))


def test_on_a_cluster_to_the_same_numbers(run, three, tmp_path):
    """The network is built again by the workers, from the path; a model of one's own travels."""
    import torch
    from distributed import LocalCluster

    there, here = (unmeasured(three / "kp", tmp_path / name) for name in ("there", "here"))
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    net = wtdiag.transport_free(net, "sa")
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    with wtdiag.Recorder(net, tmp_path / "own", probe_batch=(x, y)) as recorder:
        for step in range(3):
            recorder.snapshot(step)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as workers:
        address = workers.scheduler_address
        code, _, message = run("analyze", "--format", "html", "--scheduler", address, there)
        assert (code, message) == (0, "")
        own = wtdiag.analyze(tmp_path / "own", model=net, scheduler=address)
    remote = xr.load_dataset(there / "analysis.nc")
    local = wtdiag.analyze(here)
    assert local.attribution_loss.notnull().any()
    xr.testing.assert_allclose(remote, local, rtol=1e-12, atol=1e-12)
    xr.testing.assert_allclose(own, wtdiag.analyze(tmp_path / "own", model=net), rtol=1e-12, atol=1e-12)
    assert own.error_angle.notnull().any()


_PEAK = """
import resource, sys, torch, wtdiag
path, count = sys.argv[1], int(sys.argv[2])
net = torch.nn.Sequential(torch.nn.Linear(900, 900), torch.nn.ReLU(), torch.nn.Linear(900, 900))
model = wtdiag.transport_free(net, "sa")
with wtdiag.Recorder(model, path, probe_batch=(torch.randn(8, 900), torch.arange(8))) as recorder:
    for step in range(count):
        recorder.snapshot(step)
analysis = wtdiag.analyze(path, ["weight_angle", "error_angle", "weight_gradient_angle"], model=model)
assert analysis.weight_gradient_angle.notnull().all() and analysis.sizes["step"] == count
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_snapshots(tmp_path):
    """That of the whole process, with the network, its signals and its laws."""

    def peak(count):
        words = [sys.executable, "-c", _PEAK, str(tmp_path / str(count)), str(count)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(wtdiag.__file__).parent)
        return int(done.stdout)

    snapshot = 2 * 2 * 900 * 900 * 4 >> 20  # MiB
    assert peak(20) < peak(3) + 4 * snapshot  # not 17 more


def test_signals_that_fail_at_a_step_are_told_of(run, three, tmp_path, monkeypatch):
    import wtdiag.trainers.observe.open_run

    signals_of = wtdiag.trainers.observe.open_run.signals_of

    def failing(*given):
        signals = signals_of(*given)

        def at(step):
            if step == 0:
                raise InputError("the loss cannot take the batch")
            return signals(step)

        return at

    monkeypatch.setattr(wtdiag.trainers.observe.open_run, "signals_of", failing)
    fa = unmeasured(three / "fa", tmp_path / "fa")
    code, printed, message = run("analyze", "--format", "html", "--probe", "error_angle", fa)
    assert code == 0
    assert message == "wtdiag: step 0 has no signals: the loss cannot take the batch\n"
    assert str(fa / "report.html") in printed


def test_a_config_file_and_a_runs_own_config(run, tmp_path):
    config = tmp_path / "my.toml"
    config.write_text('rule = "sa"\nepochs = 0.5\nwidth = 16\n[coefficients]\nself = 0.1\n')
    assert run("train", "--config", config, "--out", tmp_path / "one")[0] == 0
    made = json.loads((tmp_path / "one" / "config.json").read_text())
    assert made["settings"]["coefficients"] == {"self": 0.1}
    assert made["rule"]["self"] == 0.1
    again = tmp_path / "one" / "config.json"
    assert run("train", "--config", again, "--seed", 1, "--out", tmp_path / "two")[0] == 0
    assert json.loads((tmp_path / "two" / "config.json").read_text())["settings"]["seed"] == 1


def test_a_diverged_run_is_a_result(run, tmp_path):
    out = tmp_path / "run"
    code, printed, _ = run("train", "--rule", "wm-reg", "-c", "amp=50", "--epochs", 2, "--out", out)
    assert code == 0
    assert "diverged" in printed
    config = json.loads((out / "config.json").read_text())
    assert config["status"] == "diverged"
    assert config["diverged"]["step"] == wtdiag.open_run(out).metrics.step.max() + 1
    assert run("analyze", out)[0] == 0


@pytest.mark.parametrize("address", ["head", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_cannot_be_reached(run, three, monkeypatch, address):
    import wtdiag.diagnostics.analysis.cluster

    monkeypatch.setattr(wtdiag.diagnostics.analysis.cluster, "CONNECT_SECONDS", 0.3)
    code, printed, message = run("analyze", "--scheduler", address, three / "kp")
    assert code == 2
    assert message.startswith(f"wtdiag: scheduler: '{address}' ")
    assert message.count("\n") == 1
    assert printed == ""


def test_resume_refuses_other_settings(run, tmp_path):
    out = tmp_path / "run"
    assert run("train", *QUICK, "--out", out)[0] == 0
    code, _, message = run("train", "--resume", "--out", out, "--lr", 0.7)
    assert code == 2
    assert "lr=0.05" in message
    code, _, message = run("train", "--resume", "--out", out)
    assert code == 0
    assert "finished already" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train", "--rule", "faa"), "rule: 'faa' is not known; did you mean 'fa'?"),
        (("train", "--rule", "ia", "-c", "sparse=1"), "coefficient of ia: 'sparse' is not known"),
        (("train", "--rule", "ia", "-c", "amp=lots"), "ia: amp: expected a finite number, got 'lots'"),
        (("train", "--rule", "ia", "-c", "amp"), "coefficient: expected NAME=VALUE, got 'amp'"),
        (("train", "--rule", "bp", "-c", "amp=1"), "bp: has no coefficients, got 'amp'"),
        (("train", "--rule", "sa", "-c", "self=linear:1"), "expected linear:FROM:TO"),
        (("train", "--rule", "fa", "--delay", 1), "delay: fa has no learned feedback weights"),
        (("train", "--model", "mpl"), "model: 'mpl' is not known; did you mean 'mlp'?"),
        (("train", "--model", "resnet20", "--depth", 3), "depth"),
        (("train", "--data", "digit"), "data: 'digit' is not known; did you mean 'digits'?"),
        (("train", "--data", "mnist"), "data_dir"),
        (("train", "--data", "mnist", "--data-dir", "/nowhere"), "/nowhere"),
        (("train", "--epochs", -1), "epochs: expected a number ≥ 0, got -1.0"),
        (("train", "--batch-size", 1), "batch_size: expected a number ≥ 2, got 1"),
        (("train", "--optimizer", "sgdd"), "sgdd"),
        (("train", "--device", "tpu9"), "device: 'tpu9' cannot be used"),
        (("train", "--config", "/nowhere.toml"), "config: /nowhere.toml: cannot be read (No such file or directory)"),
        (("train", "--max-gb", 1e-6), "max_gb"),
        (("train", "--nonsense",), "--nonsense"),
        (("analyze", "/nowhere"), "/nowhere: is not a directory"),
        (("analyze",), "RUN_DIR"),
        (("compare",), "RUN_DIR"),
        (("compare", "/nowhere"), "/nowhere: is not a directory"),
        (("wombat",), "wombat"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, words, expected):
    out = tmp_path / "run"
    code, printed, message = run(*words, *(("--out", out) if words[0] == "train" else ()))
    assert code == 2
    assert expected in message
    assert message.count("\n") == 1
    assert printed == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rul = 'fa'", "'rul' is not known; did you mean 'rule'?"),
        ("rule = ", "cannot be parsed"),
        ("epochs = 'many'", "epochs: expected a number, got 'many'"),
        ("coefficients = 3", "coefficients: expected a table"),
        ("depth = true", "depth: expected a whole number, got True"),
        ("rule = 3", "rule"),
    ],
)
def test_bad_config_files(run, tmp_path, text, expected):
    config = tmp_path / "my.toml"
    config.write_text(text)
    code, _, message = run("train", "--config", config, "--out", tmp_path / "run")
    assert code == 2
    assert expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten_without_force(run, tmp_path):
    out = tmp_path / "run"
    assert run("train", *QUICK, "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    code, _, message = run("train", "--rule", "bp", *QUICK, "--out", out)
    assert code == 2
    assert "--force" in message
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert run("train", "--rule", "bp", *QUICK, "--out", out, "--force")[0] == 0


def test_one_run_that_exists_stops_all_before_any_begins(run, tmp_path):
    assert run("train", "--rule", "bp", *QUICK, "--out", tmp_path / "all" / "bp")[0] == 0
    assert run("train", "--rule", "fa", "--rule", "bp", *QUICK, "--out", tmp_path / "all")[0] == 2
    assert not (tmp_path / "all" / "fa").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_corrupt_snapshot_is_named(run, tmp_path, damage):
    out = tmp_path / "run"
    assert run("train", *QUICK, "--out", out)[0] == 0
    path = sorted((out / "snapshots").iterdir())[1]
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "foreign": b"PK" + content}[damage])
    code, _, message = run("analyze", out)
    assert code == 2
    assert path.name in message
    assert message.count("\n") == 1
    assert not (out / "analysis.nc").exists()


def test_resume_of_nothing_trains_nothing(run, tmp_path):
    code, _, message = run("train", "--resume", "--out", tmp_path / "typo")
    assert code == 2
    assert f"resume: {tmp_path / 'typo'} holds no run" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "typo").exists()
    assert run("train", "--resume", "--rule", "fa", *QUICK, "--out", tmp_path / "new")[0] == 0


def test_resume_and_force_exclude_each_other(run, tmp_path):
    code, _, message = run("train", "--resume", "--force", *QUICK, "--out", tmp_path / "run")
    assert code == 2
    assert "resume, force: expected one of them" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_path_is_no_markup(run, tmp_path, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    code, printed, message = run("train", *QUICK, "--out", "a[/b]")
    assert code == 0
    assert "a[/b]" in printed
    assert "a[/b]" in message or not terminal
    assert (tmp_path / "a[" / "b]" / "config.json").exists()


def test_the_table_fits_eighty_columns_and_tells_runs_apart(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / ("long" * 20)
    code, printed, _ = run("train", "--rule", "kp", "--rule", "wm-reg", "-c", "decay=0.1", *QUICK, "--out", out)
    assert code == 0
    assert max(map(len, printed.splitlines())) <= 80
    assert "/kp " in printed
    assert "/wm-reg " in printed


def test_where_one_run_fails_the_others_are_interrupted(run, tmp_path, monkeypatch, recwarn):
    from wtdiag.probes.records import rundir

    append = rundir.append_metrics

    def full(path, *lines):
        if path.name == "kp" and any(line["step"] == 5 for line in lines):
            raise InputError(f"{path}: cannot be written (No space left on device)")
        append(path, *lines)

    monkeypatch.setattr(rundir, "append_metrics", full)
    code, _, message = run("train", *(word for rule in ("fa", "kp", "bp") for word in ("--rule", rule)), *QUICK,
                           "--out", tmp_path / "all")  # fmt: skip
    assert code == 2
    assert message.count("\nwtdiag: ") == 1  # after the shares of the weights that are converted
    assert "No space left" in message
    for rule in ("fa", "kp", "bp"):
        config = json.loads((tmp_path / "all" / rule / "config.json").read_text())
        assert config["status"] == "interrupted"


def test_a_full_disk_ends_several_runs_with_one_line(run, tmp_path, monkeypatch, recwarn):
    from wtdiag.trainers.record import writer

    def full(path, snapshot, form):
        raise InputError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr(writer, "write_snapshot", full)
    code, _, message = run("train", "--rule", "fa", "--rule", "kp", *QUICK, "--out", tmp_path / "all")
    assert code == 2
    assert message.count("\nwtdiag: ") == 1
    assert "No space left" in message
    assert not recwarn.list


def test_lists_fit_eighty_columns(run):
    for words, names in (
        (("rules",), wtdiag.RULES),
        (("probes",), {**wtdiag.PROBES, **DERIVED, **COSTS}),
        (("findings",), KINDS),
    ):
        code, printed, _ = run(*words)
        assert code == 0
        assert max(map(len, printed.splitlines())) <= 80
        heads = [line.split()[0] for line in printed.splitlines() if not line.startswith(" ")]
        assert heads == list(names)


def test_one_entry_is_shown_with_all_that_is_known(run):
    code, printed, _ = run("rules", "wm", "kp")
    assert (code, [line.split()[0] for line in printed.splitlines() if line[0] != " "]) == (0, ["wm", "kp"])
    assert "coefficient inputs: by default noise; one of activations, noise" in printed
    assert "optimiser of B: that of W" in printed
    assert "learning rate of 1\n" in printed  # of wm
    code, printed, _ = run("probes", "error_angle_product")
    assert (code, printed.count("\n    neutral at 90\n")) == (0, 1)
    code, printed, _ = run("findings", "angle-at-ceiling")
    assert (code, "threshold 30 degree:" in printed, "measured: right in" in printed) == (0, True, True)
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("listed", ["rules", "probes", "findings"])
def test_an_unknown_entry_is_named_with_the_choices(run, listed):
    code, printed, message = run(listed, "nobody's")
    assert (code, printed, message.count("\n")) == (2, "", 1)
    assert '"nobody\'s" is not known. Choices: ' in message


def test_derived_measures_are_listed_with_their_sources(run):
    entries = {entry.split()[0]: entry for entry in re.split(r"\n(?! )", run("probes")[1]) if entry}
    for name, entry in entries.items():
        stated = re.search(r"^    derived from (.+)$", entry, re.MULTILINE)
        assert (tuple(stated[1].split(", ")) if stated else None) == (
            DERIVED[name].sources if name in DERIVED else None
        )


def test_an_interrupted_sweep_says_how_it_goes_on(run, tmp_path, monkeypatch):
    from wtdiag.studies.engine.workers import Workers

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Workers, "run", interrupt)
    code, printed, message = run("sweep", "--rule", "fa", "--search", "lr=0.1,0.2", "--out", tmp_path / "s")
    assert (code, printed) == (130, "")
    assert message.split("wtdiag: ")[1:] == [
        "interrupted; a training goes on with --resume, any other command when it is called again\n"
    ]


def test_help_shows_examples(run):
    for words in ((), ("train",), ("analyze",), ("compare",)):
        code, printed, _ = run(*words, "--help")
        assert code == 0
        examples = [line for line in printed.splitlines() if line.startswith("  wtdiag ")]
        assert len(examples) >= 2


def test_every_public_name_is_there():
    for name in wtdiag.__all__:
        assert getattr(wtdiag, name) is not None
    with pytest.raises(AttributeError):
        wtdiag.nothing  # noqa: B018
