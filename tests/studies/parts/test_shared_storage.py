"""Searches that machines share, through a journal or a PostgreSQL that this file starts: each trial once, none lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
import xarray as xr

from tests.studies.parts.test_sweep import SPACE, drain, make, outcome
from wtdiag.probes.errors import InputError
from wtdiag.studies.engine.cell import Outcome
from wtdiag.studies.engine.storage import open_storage

SMALL: dict[str, Any] = {"methods": {}, "space": {"lr": SPACE["lr"]}}


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL; Debian keeps them out of the search path."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed; Debian's package is postgresql")
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server that only this machine's root and its owner can reach, and return its URL and process."""
    initdb, postgres = program("initdb"), program("postgres")
    owner = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp())
    try:
        if owner:
            shutil.chown(folder, owner)
        make_cluster = [initdb, "-D", folder / "data", "-A", "trust", "-U", "wtdiag", "--no-sync"]
        subprocess.run(make_cluster, check=True, capture_output=True, user=owner, cwd="/")
        serve = [postgres, "-D", folder / "data", "-k", folder, "-h", "", "-F"]
        with subprocess.Popen(serve, stderr=subprocess.DEVNULL, user=owner, cwd="/") as process:
            url = f"postgresql://wtdiag@/postgres?host={folder}"
            end = time.monotonic() + 60
            while not (folder / ".s.PGSQL.5432").exists():
                assert time.monotonic() < end
                time.sleep(0.05)
            yield url, process
            process.send_signal(signal.SIGINT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["journal", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "journal":
        return f"journal:///{tmp_path / 'search.log'}"
    url: str = request.getfixturevalue("server")[0]
    for name in optuna.get_all_study_names(storage := open_storage(url)):
        optuna.delete_study(study_name=name, storage=storage)
    return url


def test_a_search_is_the_same_in_any_storage_and_goes_on(tmp_path: Path, url: str) -> None:
    given = SMALL | {"trials": 2}
    sweep = make(tmp_path / "s", storage=url, **given)
    drain(sweep, lambda cell: Outcome("failed", "disk full") if cell.path.name == "bp-1" else outcome(cell))
    assert (sweep.results().status == "failed").sum() == 1
    sweep.close()
    again = make(tmp_path / "s", storage=url, **given)
    assert [cell.path.name for cell in drain(again)] == ["bp-1"]
    plain = make(tmp_path / "plain", **given)
    drain(plain)
    for name in ("status", "validation_accuracy", "lr"):
        xr.testing.assert_equal(again.results()[name], plain.results()[name])


def test_two_that_search_at_once_share_the_trials(tmp_path: Path, url: str) -> None:
    given = SMALL | {"storage": url, "trials": 8}
    sweeps = [make(tmp_path / name, **given) for name in "ab"]
    for sweep in sweeps:
        sweep.sources()
    with ThreadPoolExecutor(2) as both:
        begun = list(both.map(drain, sweeps))
    names = Counter(cell.path.name for cells in begun for cell in cells)
    assert names == {f"bp-{number}": 1 for number in range(8)}


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import wtdiag.studies.parts.search
from test_shared_storage import SMALL, drain, make, outcome

wtdiag.studies.parts.search.HEARTBEAT = 0.1

def train(cell):
    if cell.path.name == "bp-1":
        Path({mark!r}).touch()
        time.sleep(1000)
    return outcome(cell)

drain(make(Path({out!r}), storage={url!r}, trials=4, **SMALL), train)
"""


@pytest.mark.slow
def test_the_trial_of_a_machine_that_was_lost_is_taken_up_by_another(
    tmp_path: Path, server: tuple[str, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = server
    for name in optuna.get_all_study_names(storage := open_storage(url)):
        optuna.delete_study(study_name=name, storage=storage)
    monkeypatch.setattr("wtdiag.studies.parts.search.SILENCE", 2.0)
    tests, mark = str(Path(__file__).parent), tmp_path / "mark"
    script = SCRIPT.format(tests=tests, mark=str(mark), out=str(tmp_path / "lost"), url=url)
    root = {"PYTHONPATH": str(Path(__file__).parents[3])}
    machine = subprocess.Popen([sys.executable, "-W", "error", "-c", script], env=os.environ | root)
    try:
        end = time.monotonic() + 120
        while not mark.exists():
            assert machine.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        given = SMALL | {"storage": url, "trials": 4}
        time.sleep(2.5)  # it is alive: its trial is its own, however long that takes
        assert [cell.path.name for cell in drain(make(tmp_path / "here", **given))] == ["bp-2", "bp-3"]
    finally:
        machine.kill()
        machine.wait()
    time.sleep(2.5)
    sweep = make(tmp_path / "there", **given)
    (taken,) = drain(sweep)
    assert taken.path.name == "bp-1"
    alone = drain(make(tmp_path / "alone", trials=4, **SMALL))
    assert taken.settings == alone[1].settings  # with the parameters that it was begun with
    assert (sweep.results().status == "finished").all()


def test_a_machine_that_was_silent_too_long_leaves_its_trial_to_the_one_that_took_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = SMALL | {"storage": f"journal:///{tmp_path / 'search.log'}", "trials": 1}
    slow = make(tmp_path / "slow", **given)
    (source,) = slow.sources()
    cell = source.next()
    assert cell is not None
    monkeypatch.setattr("wtdiag.studies.parts.search.SILENCE", -1.0)
    quick = make(tmp_path / "quick", **given)
    assert len(drain(quick)) == 1
    source.ended(cell, Outcome("finished", "", 20, 0.123, 0.2, 1.5))
    assert slow.results().validation_accuracy.item() == outcome(cell).accuracy  # of the one that ended first


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"cannot be opened \(No such file or directory\)"),
        (b"a letter", "is not a journal of Optuna"),
        (b"a letter\n", "is not a journal of Optuna"),
        (b'{"op_code":0}\n', "is not a journal of Optuna"),
    ],
)
def test_what_is_not_a_journal_is_left_as_it_is(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "none" / "x" if content is None else tmp_path / "x"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=f"^storage: journal:.*/x {says}$"):
        open_storage(f"journal:///{file}")
    assert content is None or file.read_bytes() == content
    with pytest.raises(InputError, match="names no file"):
        open_storage("journal://")


def test_a_line_of_a_journal_that_a_full_disk_has_torn_is_dropped(tmp_path: Path) -> None:
    url, file = f"journal:///{tmp_path / 'search.log'}", tmp_path / "search.log"
    given = SMALL | {"storage": url, "trials": 2}
    drain(make(tmp_path / "a", **given | {"trials": 1}))
    whole = file.read_bytes()
    with file.open("ab") as journal:
        journal.write(whole[:20])
    assert len(drain(make(tmp_path / "b", **given))) == 1
    assert file.read_bytes().startswith(whole)


def test_a_server_that_has_gone_is_one_line(tmp_path: Path, server: tuple[str, subprocess.Popen[bytes]]) -> None:
    url, process = server  # the last test: the server does not come back
    sweep = make(tmp_path / "s", storage=url.replace("wtdiag@", "wtdiag:secret@"), **SMALL)
    sweep.sources()
    process.send_signal(signal.SIGINT)
    process.wait()
    for act in (sweep.results, lambda: open_storage(url)):
        with pytest.raises(InputError, match=r"^storage: postgresql://wtdiag\S+ cannot be \w+ \([^\n]+\)$") as error:
            act()
        assert "secret" not in str(error.value)
