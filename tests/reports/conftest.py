"""Fixtures of the report tests: runs that are written without training."""

from pathlib import Path

import pytest

from tests.reports.runs import analysis, finding, write_run
from wtdiag.reports import document


@pytest.fixture
def run(tmp_path):
    """A finished run of six layers with every measure and one finding."""
    return write_run(tmp_path / "runs" / "ia6", analysis(), findings=[finding()], events=[(340, "loss jumped")])


@pytest.fixture
def light(tmp_path):
    """A finished run of six layers with the weight angle only: quick to report."""
    measured = analysis()[["weight_angle", "weight_angle_null", "weight_angle_null_sd"]]
    return write_run(tmp_path / "runs" / "ia6", measured)


@pytest.fixture(scope="session")
def css():
    """The style sheet of the page."""
    return (Path(document.__file__).parent / "templates" / "report.css").read_text()
