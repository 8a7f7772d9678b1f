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
from wtdiag.probes.errors import InputError
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


@pytest.mark.parametrize("name", ["missing", "x" * 300])
def test_what_cannot_be_opened_is_named(tmp_path, name):
    done = CliRunner().invoke(cli, ["open", str(tmp_path / name)])
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("run: ")


def test_a_saved_analysis_is_read_by_its_run_or_its_path(tmp_path):
    saved = wtdiag.read_analysis("docs/gallery/ia.nc")
    saved.to_netcdf(tmp_path / "analysis.nc", engine="h5netcdf")
    assert wtdiag.read_analysis(tmp_path).equals(saved)
    with pytest.raises(InputError, match="there is no analysis"):
        wtdiag.read_analysis(tmp_path / "none")
