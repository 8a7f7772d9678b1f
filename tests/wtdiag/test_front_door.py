"""What a start costs, the groups of the help, completion by the shell, and reports that are opened."""

import os
import subprocess
import sys
import webbrowser

import pytest
from click.testing import CliRunner

import wtdiag
from tests.test_imports import loaded_by
from wtdiag.cli import cli
from wtdiag.cli.terminal import called
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import command_options
from wtdiag.studies.engine.storage import shown_url
from wtdiag.trainers.config.settings import Settings


def test_the_command_line_starts_without_the_libraries_that_only_measuring_needs():
    assert not loaded_by("wtdiag.cli") & {"numpy", "pandas", "scipy", "xarray", "matplotlib", "torch", "rich", "h5py"}


def test_help_lists_every_setting_once_under_a_heading():
    said = CliRunner().invoke(cli, ["train", "--help"]).output
    sections = dict(part.split(":\n", 1) for part in said.split("\n\n") if ":\n" in part)
    assert list(sections) == [
        "Options", "Rule", "Feedback weights", "Network", "Data", "Training", "Device and files", "Recording",
    ]  # fmt: skip
    assert "--feedback-lr" in sections["Feedback weights"]
    assert "--rule" in sections["Rule"]
    assert "[FILE]" not in sections["Options"]
    for name in Settings.__dataclass_fields__:
        option = f"--{name.replace('_', '-').removesuffix('s') if name == 'coefficients' else name.replace('_', '-')}"
        assert sum(f"{option} " in f"{text} " for text in sections.values()) == 1, option


def test_the_shell_completes():
    asked = {**os.environ, "_WTDIAG_COMPLETE": "bash_complete", "COMP_WORDS": "wtdiag op", "COMP_CWORD": "1"}
    # As the installed script is called; `python -m wtdiag` has another name.
    code = "import sys; sys.argv = ['wtdiag']; from wtdiag.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,open\n", done.stderr


def test_a_report_is_opened(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(webbrowser, "open", lambda page: seen.append(page) or True)
    (tmp_path / "comparison.html").touch()
    (tmp_path / "index.html").touch()
    done = CliRunner().invoke(cli, ["open", str(tmp_path)])
    assert done.output == f"{tmp_path / 'index.html'}\n"
    assert seen == [(tmp_path / "index.html").as_uri()]


@pytest.mark.parametrize("kind", ["study", "sweep", "transfer"])
def test_the_page_of_many_runs_is_opened(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(webbrowser, "open", lambda page: True)
    (tmp_path / f"{kind}.html").touch()
    assert CliRunner().invoke(cli, ["open", str(tmp_path)]).output == f"{tmp_path / f'{kind}.html'}\n"


def test_the_help_lists_every_command_once_under_a_heading_with_its_whole_sentence():
    said = CliRunner().invoke(cli, ["--help"]).output
    assert "..." not in said.partition("ARGS]...")[2]
    assert "Commands:" not in said
    for name in cli.commands:
        assert sum(line.startswith(f"  {name} ") for line in said.splitlines()) == 1, name
        own = CliRunner().invoke(cli, [name, "--help"]).output
        assert f"\n  wtdiag {name}" in own, f"{name} has no example"


def test_a_number_is_written_as_a_user_types_it():
    changes = {"epochs": 30.0, "lr": 1e-05, "coefficients": {"decay": 0.0}, "batch_size": 64}
    assert command_options(changes) == ["-c", "decay=0", "--epochs", "30", "--batch-size", "64", "--lr", "1e-5"]
    given = read_back(command_options(changes))
    assert (given["epochs"], given["lr"]) == (30.0, 1e-05)
    assert "10.0" not in CliRunner().invoke(cli, ["train", "--help"]).output


def read_back(words):
    with cli.commands["train"].make_context("train", list(words)) as context:
        return context.params


def test_a_command_is_recorded_without_its_secret(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wtdiag", "sweep", "--storage=postgresql://me:secret@host/x", "--out", "a b"])
    url = "postgresql://me:secret@host/x"
    assert called(url, shown_url(url)) == "wtdiag sweep '--storage=postgresql://me:***@host/x' --out 'a b'"


@pytest.mark.parametrize("name", ["missing", "x" * 300])
def test_what_cannot_be_opened_is_named(tmp_path, name):
    done = CliRunner().invoke(cli, ["open", str(tmp_path / name)])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("run: ")


@pytest.mark.parametrize(
    "name", ["analyze", "attack", "baseline", "compare", "diagnose", "open_run", "read_analysis", "report"]
)
@pytest.mark.parametrize("given", [None, 3, b"runs/ia"])
def test_what_is_no_path_is_named(name, given):
    with pytest.raises(InputError, match=r"^run: .* is of type \w+; expected a path$"):
        getattr(wtdiag, name)(given)


def test_a_saved_analysis_is_read_by_its_run_or_its_path(tmp_path):
    saved = wtdiag.read_analysis("docs/gallery/ia.nc")
    saved.to_netcdf(tmp_path / "analysis.nc", engine="h5netcdf")
    assert wtdiag.read_analysis(tmp_path).equals(saved)
    with pytest.raises(InputError, match="there is no analysis"):
        wtdiag.read_analysis(tmp_path / "none")


def test_a_kind_of_finding_tells_how_it_is_seen_and_what_helps():
    said = CliRunner().invoke(cli, ["findings", "not-aligning"]).output
    assert "    looks for: an angle that never left its chance band" in said
    assert "    advice: Train three times as long." in said
