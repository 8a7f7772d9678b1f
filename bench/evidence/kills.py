"""Kill commands at random instants, some in the first second, some again while they go on; then let them end.

What they leave must be bitwise what an undisturbed start leaves, with no file and no process more. 200 kills take about
40 minutes on two cores: ``python -m bench kills``, or ``python -m bench kills 20`` for fewer.
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

KILLS = 200
_AGAIN = 0.3
"""Share of the cases in which the command is killed a second time, while it goes on."""
_EARLY = 0.3
"""Share of the kills that come in the first second."""
_PATIENCE = 30.0


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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        references = {command.name: _reference(command, folder) for command in COMMANDS}
        for each, reference in references.items():
            known = f"{len(reference.equal)} of {len(reference.files)} files can be compared bitwise"
            print(f"{each:<8} {reference.seconds:5.1f} s, {known}", flush=True)
        cases = [_Case(COMMANDS[seed % len(COMMANDS)], seed) for seed in range(kills)]
        done: list[_Case] = []
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for case in pool.map(lambda case: _kill(case, references[case.command.name], folder), cases):
                done.append(case)
                if case.wrong:
                    print(f"case {case.seed}, {case.command.name}, killed after {case.kills}: {'; '.join(case.wrong)}")
                if sum(len(each.kills) for each in done) >= kills:
                    break
            pool.shutdown(cancel_futures=True)
    count, wrong = sum(len(case.kills) for case in done), [case for case in done if case.wrong]
    early = sum(seconds < 1 for case in done for seconds in case.kills)
    print(
        f"{count} kills, {early} of them in the first second: {len(wrong)} cases wrong; "
        f"{time.monotonic() - began:.0f} s"
    )
    if wrong:
        raise SystemExit(1)


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
    if ended.returncode:
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
