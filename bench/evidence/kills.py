"""Kill commands at random instants, some in the first second, some again while they go on; then let them end.

What they leave must be bitwise what an undisturbed start leaves, with no file and no process more:
``python -m bench kills``, or ``python -m bench kills 20`` for fewer. The table is written into docs/robustness.md.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from bench.evidence.commands import COMMANDS, Command, comparable, contents, environment, prepare
from bench.evidence.page import fill, table

KILLS = 200
_AGAIN = 0.3
"""Share of the cases in which the command is killed a second time, while it goes on."""
_EARLY = 0.3
"""Share of the kills that come in the first second."""
_PATIENCE = 30.0
_NOTHING_LEFT = "is finished already"
"""Said by a training that was killed after its last file was written."""


@dataclass
class _Reference:
    """What an undisturbed start leaves, how long it takes, and which files two of them leave equal."""

    files: dict[str, bytes]
    equal: set[str]
    seconds: float


@dataclass
class _Case:
    """One command in one folder, and what was wrong with what it left."""

    command: Command
    seed: int
    kills: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def run(kills: int = KILLS) -> None:
    """Kill, compare and print; raise `SystemExit` if anything was left otherwise than it should be."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        folder = Path(name)
        prepare(folder)
        references = dict(
            zip(
                (each.name for each in COMMANDS), pool.map(lambda each: _reference(each, folder), COMMANDS), strict=True
            )
        )
        for each, reference in references.items():
            known = f"{len(reference.equal)} of {len(reference.files)} files can be compared bitwise"
            print(f"{each:<8} {reference.seconds:5.1f} s, {known}", flush=True)
        # Some commands end before they are killed: more cases than kills are ready, and the last are not made.
        cases = [_Case(COMMANDS[seed % len(COMMANDS)], seed) for seed in range(2 * kills)]
        done: list[_Case] = []
        for case in pool.map(lambda case: _kill(case, references[case.command.name], folder), cases):
            done.append(case)
            if case.wrong:
                print(
                    f"case {case.seed}, {case.command.name}, killed after {case.kills}: {'; '.join(case.wrong)}",
                    flush=True,
                )
            if sum(len(each.kills) for each in done) >= kills:
                break
        pool.shutdown(cancel_futures=True)
    seconds, wrong = time.monotonic() - began, [case for case in done if case.wrong]
    rows = [_row(each.name, done, references) for each in COMMANDS] + [_row("", done, references)]
    heads = ("command", "kills", "in the first second", "a second time", "files compared", "cases wrong")
    fill("robustness.md", "kills", f"{table(heads, rows)}\n\nThis took {seconds / 60:.0f} minutes.")
    print(table(heads, rows), f"{seconds:.0f} s", sep="\n")
    if wrong:
        raise SystemExit(1)


def _row(name: str, cases: list[_Case], references: dict[str, _Reference]) -> tuple[object, ...]:
    """Return the row of a command, or that of all for ""."""
    cases = [case for case in cases if name in ("", case.command.name)]
    kills = [seconds for case in cases for seconds in case.kills]
    compared = [
        f"{len(reference.equal)} of {len(reference.files)}" for each, reference in references.items() if each == name
    ]
    return (
        name or "**all**",
        len(kills),
        sum(seconds < 1 for seconds in kills),
        sum(len(case.kills) > 1 for case in cases),
        *(compared or [""]),
        f"{sum(bool(case.wrong) for case in cases)}/{len(cases)}",
    )


def _reference(command: Command, folder: Path) -> _Reference:
    """Start a command twice, undisturbed."""
    left = []
    began = time.monotonic()
    for part in "ab":
        place = _place(command, folder, f"{command.name}-{part}")
        subprocess.run(command.arguments(place), check=True, capture_output=True, env=environment())
        left.append(contents(place))
    return _Reference(left[0], comparable(*left), (time.monotonic() - began) / 2)


def _kill(case: _Case, reference: _Reference, folder: Path) -> _Case:
    chance = random.Random(case.seed)
    place = _place(case.command, folder, f"case-{case.seed}")
    for _ in range(2 if chance.random() < _AGAIN else 1):
        seconds = chance.uniform(0, 1 if chance.random() < _EARLY else reference.seconds)
        process = subprocess.Popen(
            case.command.arguments(place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            case.kills.append(round(seconds, 2))
    ended = subprocess.run(case.command.arguments(place), capture_output=True, text=True, env=environment())
    if ended.returncode and _NOTHING_LEFT not in ended.stderr:
        case.wrong.append(f"it does not go on: {ended.stderr.strip()[-300:]}")
    left = contents(place)
    if extra := left.keys() ^ reference.files.keys():
        case.wrong.append(f"files differ: {', '.join(sorted(extra)[:5])}")
    if unequal := [name for name in sorted(reference.equal & left.keys()) if left[name] != reference.files[name]]:
        case.wrong.append(f"not bitwise equal: {', '.join(unequal[:5])}")
    if alive := _alive(place):
        case.wrong.append(f"processes left: {alive}")
    shutil.rmtree(place)
    return case


def _place(command: Command, folder: Path, name: str) -> Path:
    """Make a folder of the same length of name for each case, with what the command begins from."""
    place = folder / f"{name:_<12}"
    if command.begins_from:
        shutil.copytree(folder / command.begins_from, place)
    else:
        place.mkdir()
    return place


def _alive(place: Path) -> list[int]:
    """Return the processes that have the folder in their command line, when they had time to end."""
    end = time.monotonic() + _PATIENCE
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(place) in words:
                found.append(int(process.name))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.2)
