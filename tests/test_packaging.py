"""The wheel that a source distribution gives, installed into an empty environment and used outside the checkout.

The environment is new but for its dependencies: a ``.pth`` file leads to those of this Python, because to install
PyTorch again would take minutes and gigabytes. The checkout is not on that path, since files of a path are read and
``.pth`` files in it are not.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

import wtdiag

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
SCRIPT = """
import json
import wtdiag
from wtdiag.studies.file.plan import built_in, read_plan

try:
    wtdiag.main("analyze run --fast".split())
except SystemExit as end:
    code = end.code or 0
titles = [read_plan(name).title for name in built_in()]
print(json.dumps({"file": wtdiag.__file__, "version": wtdiag.__version__, "code": code, "studies": len(titles)}))
"""


def call(*words, cwd, env=None):
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution of the checkout, and the wheel that is built of it."""
    folder = tmp_path_factory.mktemp("distributions")
    leave = shutil.ignore_patterns(".*", "runs", "_build", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=leave)
    shutil.copytree(ROOT / ".ci", folder / "source" / ".ci")
    call(sys.executable, "-c", BUILD, "build_sdist", folder, cwd=folder / "source")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(folder / "unpacked", filter="data")
    (inside,) = (folder / "unpacked").iterdir()
    call(sys.executable, "-c", BUILD, "build_wheel", folder, cwd=inside)
    (wheel,) = folder.glob("*.whl")
    return inside, wheel


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """A new environment that holds the wheel, and finds its dependencies in that of this Python."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    install = "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", distributions[1]
    call(sys.executable, *install, cwd=folder.parent)
    return folder


@pytest.mark.slow
def test_an_installed_wheel_trains_analyses_and_reports_outside_the_checkout(installed, tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    train = "train", "--rule", "kp", "--depth", "2", "--epochs", "1", "--snapshots", "2", "--out", "run"
    call(installed / "bin" / "wtdiag", *train, cwd=tmp_path, env=env)
    found = json.loads(call(installed / "bin" / "python", "-c", SCRIPT, cwd=tmp_path, env=env).splitlines()[-1])
    assert Path(found.pop("file")).is_relative_to(installed)
    studies = len([path for scale in ("small", "medium", "full") for path in (ROOT / "studies" / scale).glob("*.toml")])
    assert found == {"version": wtdiag.__version__, "code": 0, "studies": studies}
    assert {"report.html", "report.pdf", "findings.json"} <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.slow
def test_all_that_pages_and_references_name_is_installed(installed):
    about = installed / "share" / "doc" / "wtdiag"
    tracked = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").glob("*.md")}
    tracked |= {path.relative_to(ROOT / "docs") for path in (ROOT / "docs" / "gallery").iterdir()}
    assert {path for path in tracked if not (about / "docs" / path).exists()} == set()
    named = re.findall(r"docs/[\w-]+\.md", "".join(path.read_text() for path in (ROOT / "diagnostics").rglob("*.py")))
    assert named
    assert all((about / name).exists() for name in named)


@pytest.mark.slow
def test_a_source_distribution_holds_the_tests_and_the_documentation(distributions):
    for name in (
        "tests/test_packaging.py",
        "docs/conf.py",
        "docs/_ext/registries.py",
        "examples/decoder_feedback",
        ".ci/run",
    ):
        assert (distributions[0] / name).exists(), name


def test_the_description_of_a_package_index_has_no_link_that_leads_nowhere():
    names = {"__name__": "setup", "__file__": str(ROOT / "setup.py")}
    exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), names)
    text = names["description"]()
    assert "five minutes (docs/five-minutes.md)" in text
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]*)\)", text))
    assert "![" not in text
