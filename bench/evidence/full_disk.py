"""Let the disk be full at every write of every command: one line and exit code 2, and nothing lost.

Two ways: a file system in memory of ever larger size, where root may mount one, and a largest size of a file, below
that of each file that the command writes: ``python -m bench full_disk``, or ``python -m bench full_disk 4`` for fewer
sizes. The table is written into docs/robustness.md.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.evidence.commands import COMMANDS, Command, contents, environment, prepare
from bench.evidence.page import fill, table

SIZES = 12
"""Sizes of the file system, from nothing to what the command needs."""
_EXPLAINED = "cannot be written", "cannot be made"


@dataclass(frozen=True)
class _Try:
    """One command on one disk that becomes full: how it ended, and what was wrong."""

    command: Command
    way: str
    size: int
    code: int = 0
    wrong: str = ""


def run(sizes: int = SIZES) -> None:
    """Fill disks and print; raise `SystemExit` if anything was wrong."""
    began, done = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        folder = Path(name)
        prepare(folder)
        written = pool.map(lambda each: _undisturbed(each, folder), COMMANDS)
        tries = [
            each for command, files in zip(COMMANDS, written, strict=True) for each in _tries(command, files, sizes)
        ]
        for each in pool.map(lambda number: _fill(tries[number], folder, f"disk-{number}"), range(len(tries))):
            if each is None:
                continue
            done.append(each)
            if each.wrong:
                print(f"{each.command.name}, {each.way} of {each.size} bytes: {each.wrong}", flush=True)
    seconds, wrong = time.monotonic() - began, any(each.wrong for each in done)
    rows = [_row(command.name, done) for command in COMMANDS] + [_row("", done)]
    heads = ("command", "small disks", "limits of a file's size", "ended in one line", "had enough room", "wrong")
    fill("robustness.md", "full disk", f"{table(heads, rows)}\n\nThis took {seconds / 60:.0f} minutes.")
    print(table(heads, rows), f"{seconds:.0f} s", sep="\n")
    if wrong:
        raise SystemExit(1)


def _row(name: str, tries: list[_Try]) -> tuple[object, ...]:
    """Return the row of a command, or that of all for ""."""
    tries = [each for each in tries if name in ("", each.command.name)]
    return (
        name or "**all**",
        sum(each.way == "disk" for each in tries),
        sum(each.way == "limit" for each in tries),
        sum(each.code == 2 and not each.wrong for each in tries),
        sum(each.code == 0 and not each.wrong for each in tries),
        sum(bool(each.wrong) for each in tries),
    )


def _undisturbed(command: Command, folder: Path) -> list[int]:
    """Return the sizes of the files that are there when the command has ended."""
    place = _begin(command, folder / f"whole-{command.name}", folder)
    subprocess.run(command.arguments(place), check=True, capture_output=True, env=environment())
    sizes = [path.stat().st_size for path in place.rglob("*") if path.is_file()]
    shutil.rmtree(place)
    return sizes


def _tries(command: Command, written: list[int], sizes: int) -> list[_Try]:
    tries = [_Try(command, "limit", size) for size in _limits(written, sizes)]
    if os.geteuid() == 0:
        need = sum(-(-size // 4096) * 4096 for size in written) + 2**18
        tries += [_Try(command, "disk", need * i // sizes) for i in range(1, sizes)]
    return tries


def _limits(written: list[int], sizes: int) -> list[int]:
    """Return sizes below each of the files: half of it, and one byte less."""
    every = sorted({size // 2 for size in written} | {size - 1 for size in written if size})
    return every if len(every) <= sizes else [every[i * len(every) // sizes] for i in range(sizes)]


def _fill(case: _Try, folder: Path, name: str) -> _Try | None:
    """Run a command on a disk that becomes full; return how it went, or None if such a disk cannot be had."""
    with _disk(folder / name, case.size if case.way == "disk" else None) as disk:
        if disk is None:
            return None
        try:
            place = _begin(case.command, disk / "case", folder)
        except (OSError, shutil.Error):
            return None  # there is no room for what it begins from
        before = contents(place)
        process = subprocess.Popen(
            case.command.arguments(place),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment() | {"TMPDIR": str(folder)},
        )
        if case.way == "limit":  # it cannot write yet; Python ignores SIGXFSZ, so that a write fails
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (case.size, resource.RLIM_INFINITY))
        _, errors = process.communicate()
        said = errors.strip().splitlines() or [""]
        wrong = []
        if process.returncode not in (0, 2):
            wrong.append(f"exit code {process.returncode}")
        if "Traceback" in errors or "inline_container" in errors:
            wrong.append("a traceback")
        if process.returncode == 2 and not (
            said[-1].startswith("wtdiag: ") and any(words in said[-1] for words in _EXPLAINED)
        ):
            wrong.append("no explanation")
        after = contents(place)
        if lost := [name for name in before if after.get(name) != before[name] and not _replaced(name)]:
            wrong.append(f"changed: {', '.join(lost[:3])}")
        if torn := [name for name in after if name.endswith(".tmp")]:
            wrong.append(f"left: {', '.join(torn[:3])}")
        if wrong:
            wrong.append(errors.strip()[-300:])
        return replace(case, code=process.returncode, wrong="; ".join(wrong))


def _replaced(name: str) -> bool:
    """Whether a command may have replaced a file by a newer whole one."""
    return Path(name).name in ("analysis.nc", "findings.json", "report.html")


def _begin(command: Command, place: Path, folder: Path) -> Path:
    if command.begins_from:
        shutil.copytree(folder / command.begins_from, place)
    else:
        place.mkdir()
    return place


@contextmanager
def _disk(place: Path, size: int | None) -> Iterator[Path | None]:
    """Give a folder, on a file system of so many bytes if a size is given; None if it cannot be mounted."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    mounted = size is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield place if mounted or size is None else None
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place)
