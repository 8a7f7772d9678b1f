"""Let the disk be full at every write of every command: one line and exit code 2, and nothing lost.

Two ways: a file system in memory of ever larger size, where root may mount one, and a largest size of a file, below
that of each file that the command writes. Takes about 15 minutes on two cores: ``python -m bench full_disk``.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.evidence.commands import COMMANDS, Command, contents, environment, prepare

SIZES = 12
"""Sizes of the file system, from nothing to what the command needs."""


def run(sizes: int = SIZES) -> None:
    """Fill disks and print; raise `SystemExit` if anything was wrong."""
    began, count, wrong = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for command in COMMANDS:
            place = _begin(command, folder / "whole")
            subprocess.run(command.arguments(place), check=True, capture_output=True, env=environment())
            written = _written(place)
            shutil.rmtree(place)
            tries = [("limit", size) for size in _limits(written, sizes)]
            if _can_mount(folder):
                need = sum(-(-size // 4096) * 4096 for size in written) + 2**18
                tries += [("disk", need * i // sizes) for i in range(1, sizes)]
            for way, size in tries:
                said = _try(command, way, size, folder)
                count, wrong = count + 1, wrong + bool(said)
                if said:
                    print(f"{command.name}, {way} of {size} bytes: {said}")
    print(f"{count} full disks: {wrong} wrong; {time.monotonic() - began:.0f} s")
    if wrong:
        raise SystemExit(1)


def _limits(written: list[int], sizes: int) -> list[int]:
    """Return sizes below each of the files: half of it, and one byte less."""
    every = sorted({0} | {size // 2 for size in written} | {size - 1 for size in written if size})
    return every if len(every) <= sizes else [every[i * len(every) // sizes] for i in range(sizes)]


def _try(command: Command, way: str, size: int, folder: Path) -> str:
    """Run a command on a disk that becomes full; return what was wrong."""
    with _disk(folder / "disk", size if way == "disk" else None) as disk:
        try:
            place = _begin(command, disk / "case", folder)
        except OSError:
            return ""  # there is no room for what it begins from
        before = contents(place)

        def limited() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            if way == "limit":
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        ended = subprocess.run(
            command.arguments(place),
            capture_output=True,
            text=True,
            env=environment() | {"TMPDIR": str(folder), "NUMBA_CACHE_DIR": str(folder)},
            preexec_fn=limited,
        )
        wrong = []
        if ended.returncode not in (0, 2):
            wrong.append(f"exit code {ended.returncode}")
        if "Traceback" in ended.stderr or "inline_container" in ended.stderr:
            wrong.append("a traceback")
        if ended.returncode == 2 and not ended.stderr.strip().splitlines()[-1].startswith("wtdiag: "):
            wrong.append("no explanation")
        after = contents(place)
        if lost := [name for name in before if after.get(name) != before[name] and not _replaced(name)]:
            wrong.append(f"changed: {', '.join(lost[:3])}")
        if torn := [name for name in after if name.endswith(".tmp")]:
            wrong.append(f"left: {', '.join(torn[:3])}")
        return "; ".join([*wrong, ended.stderr.strip()[-200:]]) if wrong else ""


def _replaced(name: str) -> bool:
    """Whether a command may have replaced a file by a newer whole one."""
    return Path(name).name in ("analysis.nc", "findings.json", "report.html")


def _begin(command: Command, place: Path, folder: Path | None = None) -> Path:
    if command.begins_from:
        shutil.copytree((folder or place.parent) / command.begins_from, place)
    else:
        place.mkdir()
    return place


def _written(place: Path) -> list[int]:
    return [path.stat().st_size for path in place.rglob("*") if path.is_file()]


@contextmanager
def _disk(place: Path, size: int | None) -> Iterator[Path]:
    """Give a folder, on a file system of so many bytes if a size is given."""
    place.mkdir()
    mounted = size is not None and _mount(place, size)
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place)


def _mount(place: Path, size: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0


def _can_mount(folder: Path) -> bool:
    try:
        with _disk(folder / "try", 2**20) as place:
            return place.is_mount()
    except FileNotFoundError:
        return False
