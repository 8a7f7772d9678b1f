"""The command line of sweeps: what it trains, what it takes from a file, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xarray as xr
from click.testing import CliRunner

from wtdiag.diagnostics.comparison.results import read_results
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import write_json
from wtdiag.studies.parts.sweep import Sweep


def test_the_command_trains_and_goes_on(tmp_path: Path) -> None:
    from wtdiag.cli.sweep import sweep

    out = tmp_path / "s"
    words = [
        "--rule",
        "sa",
        "--search",
        "lr=log:0.01:0.1",
        "--search",
        "decay=log:0.01:0.5",
        "--trials",
        "2",
        "--jobs",
        "1",
    ]
    words += [
        "--sampler",
        "random",
        "--width",
        "8",
        "--depth",
        "2",
        "--epochs",
        "0.2",
        "--feedback-lr",
        "0.5",
        "-c",
        "self=0.1",
    ]
    words += ["--format", "html", "--out", str(out)]
    result = CliRunner().invoke(sweep, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines()[:5])) <= 80
    assert result.stdout.splitlines()[-2:] == [str(out / "results.nc"), str(out / "sweep.html")]
    assert "bp has no feedback_lr" in result.stderr
    assert "best of sa: lr=" in result.stdout
    first = read_results(out / "results.nc")
    assert (first.status == "finished").all()
    assert (first.validation_accuracy > 0).all()
    config = json.loads((out / "trials" / "sa-1" / "config.json").read_text())
    assert config["settings"]["holdout"] == 0.2
    assert config["settings"]["coefficients"] == {"self": 0.1, "decay": first.decay.sel(rule="sa", trial=1).item()}
    assert first.step_size_number.sel(rule="sa", trial=1) == pytest.approx(
        0.5 * config["settings"]["coefficients"]["decay"] / 2
    )
    (out / "sweep.html").unlink()
    again = CliRunner().invoke(sweep, words, catch_exceptions=False)
    assert again.exit_code == 0
    assert (out / "sweep.html").exists()
    xr.testing.assert_identical(read_results(out / "results.nc"), first)


LR = ("--search", "lr=0.1,0.2", "--out", "nowhere")
OLD = '{"settings": {"rule": "kp", "coefficients": {}}, "rule": {"name": "kp", "scale": 1.0, "decay": 0.5}}'


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        (OLD, (), {"bp": {}, "kp": {"decay": 0.5}}),
        (OLD, ("-c", "decay=0.3"), {"bp": {}, "kp": {"decay": 0.3}}),
        (OLD, ("--rule", "sa"), {"bp": {}, "sa": {}}),  # both have a decay
        (OLD, ("--rule", "sa", "--rule", "kp"), {"bp": {}, "sa": {}, "kp": {"decay": 0.5}}),
        ("[coefficients]\ndecay = 0.4", ("--rule", "sa"), {"bp": {}, "sa": {"decay": 0.4}}),
    ],
)
def test_the_coefficients_of_a_file_are_those_of_the_rules_that_it_names(tmp_path, monkeypatch, text, words, expected):
    from wtdiag.cli.sweep import sweep

    def stop(out, **options):
        raise InputError(str({name: own.get("coefficients", {}) for name, own in options["methods"].items()}))

    monkeypatch.setattr("wtdiag.studies.parts.sweep.Sweep", stop)
    path = tmp_path / ("config.json" if text == OLD else "my.toml")
    path.write_text(text)
    with pytest.raises(InputError) as found:
        CliRunner().invoke(sweep, ["--config", str(path), *LR, *words], catch_exceptions=False)
    assert str(found.value) == str(expected)


def test_a_search_takes_the_settings_of_a_run_that_held_nothing_out(tmp_path, monkeypatch):
    from wtdiag.cli.sweep import sweep
    from wtdiag.trainers.config.settings import Settings

    def stop(out, **options):
        raise InputError(str(Sweep(out, **options).settings))

    monkeypatch.setattr("wtdiag.studies.parts.sweep.Sweep", stop)
    write_json(tmp_path / "config.json", {"settings": Settings(rule="kp", epochs=3, lr=0.07).as_dict()})
    with pytest.raises(InputError, match=r"'holdout': 0.2.*'epochs': 3"):
        CliRunner().invoke(sweep, ["--config", str(tmp_path / "config.json"), *LR], catch_exceptions=False)
    (tmp_path / "my.toml").write_text('rule = "kp"\nholdout = 0')
    with pytest.raises(InputError, match="holdout: expected a share above 0"):
        CliRunner().invoke(sweep, ["--config", str(tmp_path / "my.toml"), *LR], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("coefficients = 3", "coefficients: expected a table of names and values, got 3"),
        ("rule = [[3]]", "rule: expected a name or a list of names, got"),
        ("rule = 3", "rule: expected a name or a list of names, got 3"),
    ],
)
def test_what_a_file_of_a_sweep_cannot_hold_is_told(tmp_path, text, message):
    from wtdiag.cli.sweep import sweep

    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(sweep, ["--config", str(path), *LR], catch_exceptions=False)
