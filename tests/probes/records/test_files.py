"""What a killed writer leaves, and what becomes of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from wtdiag.probes.records import files

KILLED = """
import os, signal, sys
from wtdiag.probes.records.files import write_aside
with write_aside(sys.argv[1]) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def torn_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.tmp"))


def test_what_a_killed_writer_left_goes_with_the_next_write_into_the_folder(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "analysis.nc")], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(torn_in(tmp_path)) == 1
    files.write_json(tmp_path / "findings.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["findings.json"]


def test_what_somebody_may_still_write_stays(tmp_path: Path) -> None:
    mine = tmp_path / f".analysis.nc.{files._place()}-{os.getpid()}-0123abcd.tmp"
    elsewhere, long_ago = (tmp_path / f".analysis.nc.00000000-1-{digit * 8}.tmp" for digit in "12")
    earlier_version, other = tmp_path / ".analysis.nc.0123abcd.tmp", tmp_path / ".mine.tmp"
    for path in (mine, elsewhere, long_ago, earlier_version, other):
        path.touch()
    for path in (long_ago, earlier_version, other):
        os.utime(path, (0, time.time() - 2 * 86400))
    files.write_json(tmp_path / "findings.json", {})
    assert torn_in(tmp_path) == sorted([mine, elsewhere, other])


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes(b'\xef\xbb\xbfrule = "fa"\n')
    assert files.read_toml(tmp_path / "my.toml")[0] == {"rule": "fa"}
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"status": "finished"}')
    assert files.read_json(tmp_path / "config.json") == {"status": "finished"}
