"""One case: a copy of sound files, some of them damaged, and one call on them that must end well or in one line.

What may happen: a result, or an `InputError` of one line. What may not: another exception, more than 20 s, more than
2 GB, a file outside read, written or removed, code of the files run, markup of theirs in a page.
"""

import resource
import shutil
import signal
import stat
import struct
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from tests.fuzz import damage
from wtdiag.probes.errors import InputError

SECONDS = 20
MEMORY = 2 * 2**30
STUDY = """title = "Small"

[settings]
depth = 2
epochs = 0.5
coefficients = {}

[rules.ia]
amp = 0.1

[[grid]]
settings = {width = 16}

[grid.factors]
rule = ["bp", "ia"]
depth = [2, 3]
seed = [0, 1]

[tune]
search = {lr = {log = [0.01, 0.1]}}
trials = 2

[[sweep]]
name = "one"
rules = ["ia"]
search = {lr = {log = [0.01, 0.1]}, amp = [0.1, 0.2]}
trials = 3
map = ["lr", "amp"]

[[transfer]]
name = "deeper"
sweep = "one"
to = {deep = {depth = 4}}
top = 1
seeds = [0]
"""
CONFIG = """rule = "ia"
model = "mlp"
depth = 2
epochs = 1.0
lr = 0.05
batch_size = 64
seed = 3

[coefficients]
amp = 0.1
decay = "linear:0.1:0"
"""


def make_sound(folder: Path) -> None:
    """Make the sound files that all cases begin from: two runs, a study, a sweep, a configuration, exports."""
    import wtdiag
    from tests.reports import studied
    from wtdiag.diagnostics.analysis.analyze import write_analysis
    from wtdiag.diagnostics.analysis.attacked import Attacked, Attempt, write_attacked
    from wtdiag.diagnostics.analysis.owed import Arm, Baseline, write_baseline
    from wtdiag.diagnostics.findings.finding import write_findings
    from wtdiag.probes.records.files import write_json
    from wtdiag.probes.records.schema import ANALYSIS, FINDINGS

    for name, rule in (("run", "ia"), ("other", "bp")):
        settings = wtdiag.Settings(
            rule=rule, depth=2, width=8, epochs=0.5, snapshots=3, probe_size=4, seed=1, device="cpu"
        )
        training = wtdiag.Training(settings, folder / name)
        for _ in training:
            if name == "run" and training.progress.step == 5:
                break
        run = wtdiag.open_run(folder / name)
        analysis = wtdiag.analyze(run)
        write_analysis(analysis, run.path / ANALYSIS)
        arm = Arm(0.5, 0.25, 0.75, 0.0, -0.25, 0.25)
        write_baseline(Baseline(3, 2, 1, 300, 200, {"frozen": arm}, {"fc1": {"frozen": arm}}), run.path)
        write_attacked(Attacked(3, 200, 5, (Attempt("none", 0, 0.5, 0.25, 0.75),)), run.path)
        write_findings(wtdiag.diagnose(run, analysis), run.path / FINDINGS)
    studied.put(studied.grid(rules=("bp", "ia"), seeds=2, depth=(2, 3)), folder / "study")
    studied.put(studied.sweep(rules=("bp", "ia"), trials=4), folder / "study" / "sweeps" / "one")
    studied.put(studied.transfer(rules=("bp", "ia"), seeds=1, top=1), folder / "study" / "transfers" / "deeper")
    write_json(
        folder / "study" / "study.json", {"title": "Small", "about": "", "settings": {}, "methods": {}, "file": STUDY}
    )
    space = {"lr": {"low": 0.01, "high": 0.1, "log": True}}
    methods = {rule: {"settings": {"rule": rule}, "space": space} for rule in ("bp", "ia")}
    write_json(folder / "study" / "sweeps" / "one" / "sweep.json", {"methods": methods})
    (folder / "plan").mkdir()
    (folder / "plan" / "study.toml").write_text(STUDY)
    (folder / "plan" / "config.toml").write_text(CONFIG)
    (folder / "export").mkdir()
    exported = {f"fc{i}_{side}": np.random.default_rng(i).normal(size=(3, 4, 5)) for i in (1, 2) for side in SIDES}
    exported |= {"step": np.array([0, 5, 9]), "loss": np.array([2.0, 1.5, 1.0])}
    np.savez(folder / "export" / "weights.npz", **exported)
    scipy.io.savemat(folder / "export" / "weights.mat", exported)


def _open(folder):
    import wtdiag

    return wtdiag.open_run(folder / "run")


def _read(folder):
    run = _open(folder)
    return [
        run.config,
        run.metrics,
        *(part for step in run.steps[:3] for part in (run.snapshot(step), run.state(step))),
    ]


def _layers(folder):
    run = _open(folder)
    return [run.layer(name) for step in run.steps[-1:] for name in list(run.snapshot(step).children)[:3]]


def _model(folder):
    run = _open(folder)
    return [run.model(step).state_dict() for step in run.steps[:2]], run.probe_batch()


def _analyze(folder):
    import wtdiag

    return wtdiag.analyze(folder / "run", ["weight_angle", "error_angle", "step_size_number"])


def _analyze_all(folder):
    import wtdiag

    return wtdiag.analyze(folder / "run")


def _diagnose(folder):
    import wtdiag

    return wtdiag.diagnose(folder / "run")


def _report(folder):
    import wtdiag

    return [path.read_text() for path in wtdiag.report(folder / "run", formats=("html",))]


def _pdf(folder):
    import wtdiag

    return wtdiag.report(folder / "run", formats=("pdf",))


def _joint(folder):
    from wtdiag.reports import write

    return [path.read_text() for path in write([folder / "run", folder / "other"], formats=("html",), out=folder)]


def _compare(folder):
    import wtdiag

    return wtdiag.compare([folder / "run", folder / "other"])


def _resume(folder):
    import wtdiag
    from wtdiag.trainers.loop.launch import runs_to_train

    trained = []
    for path, settings in runs_to_train([], {}, out=folder / "run", resume=True).items():
        training = wtdiag.Training(settings, path, resume=True)
        trained += [progress.step for progress in islice(training, 2)]
    return trained


def _force(folder):
    from wtdiag.probes.records.rundir import make

    make(folder / "run", {"status": "running"}, force=True).release()


def _outcome(folder):
    from wtdiag.studies.engine.cell import outcome_of

    return outcome_of(folder / "run")


def _findings(folder):
    from wtdiag.diagnostics.findings.finding import read_findings

    return read_findings(folder / "run" / "findings.json")


def _checks(folder):
    from wtdiag.diagnostics.analysis.attacked import read_attacked
    from wtdiag.diagnostics.analysis.owed import read_baseline

    return read_attacked(folder / "run"), read_baseline(folder / "run")


def _results(folder):
    from wtdiag.diagnostics.comparison.results import gather
    from wtdiag.studies.parts.finished_sweep import read_finished_sweep

    gather(folder / "study")
    return read_finished_sweep(folder / "study" / "sweeps" / "one").best("ia", 1)


def _study_page(folder):
    from wtdiag.reports.publish import publish
    from wtdiag.reports.study.study_page import report

    return [path.read_text() for path in publish(report(folder / "study"), folder / "study", "study", ("html",))]


def _plan(folder):
    from wtdiag.studies.file.plan import read_plan
    from wtdiag.studies.study import Study

    return Study(folder / "new", read_plan(str(folder / "plan" / "study.toml"))).cells()


def _config(folder):
    from wtdiag.trainers.loop.launch import runs_to_train

    return runs_to_train([], {}, config=folder / "plan" / "config.toml")


def _import(folder):
    import wtdiag
    from wtdiag.probes.records.exported import import_run

    opened = []
    for kind in ("npz", "mat"):
        if (folder / "export" / f"weights.{kind}").exists():
            import_run(folder / "export" / f"weights.{kind}", folder / kind)
            run = wtdiag.open_run(folder / kind)
            opened += [run.config, run.metrics, *(run.snapshot(step) for step in run.steps)]
    return opened


SIDES = "forward", "feedback"
SNAPSHOTS = "run/snapshots/*.nc"
CHECKS = "run/attack.json", "run/baseline.json"
ANALYSED = ("run/config.json", "run/metrics.jsonl", "run/analysis.nc", "run/analysis.nc", "run/findings.json", *CHECKS)
RECORDED = ("run/config.json", "run/metrics.jsonl", SNAPSHOTS, SNAPSHOTS, SNAPSHOTS, "run/probe_batch.nc")
RESULTS = ("study/results.nc", "study/sweeps/one/results.nc", "study/transfers/deeper/results.nc", "study/**/*.json")
CALLS: dict[str, tuple[Callable, tuple[str, ...], int]] = {
    "open_run": (_open, ("run/config.json",), 8),
    "read": (_read, RECORDED, 26),
    "layers": (_layers, (SNAPSHOTS,), 10),
    "model": (_model, RECORDED, 12),
    "analyze": (_analyze, RECORDED, 6),
    "analyze all": (_analyze_all, RECORDED, 2),
    "diagnose": (_diagnose, ANALYSED, 20),
    "report": (_report, ANALYSED, 2),
    "report.pdf": (_pdf, ANALYSED, 1),
    "joint report": (_joint, ANALYSED, 1),
    "compare": (_compare, ANALYSED, 8),
    "resume": (_resume, ("run/checkpoint.pt", "run/checkpoint.pt", *RECORDED), 16),
    "force": (_force, RECORDED, 2),
    "outcome": (_outcome, ANALYSED[:2], 6),
    "findings": (_findings, ("run/findings.json",), 5),
    "checks": (_checks, CHECKS, 5),
    "results": (_results, RESULTS, 14),
    "study report": (_study_page, RESULTS, 1),
    "study file": (_plan, ("plan/study.toml",), 16),
    "configuration": (_config, ("plan/config.toml",), 16),
    "import": (_import, ("export/*",), 12),
}
"""Calls by name, the files that are damaged for each, and how often it is made."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended: what it did, and what was wrong, "" for nothing."""

    seed: int
    call: str
    damages: tuple[str, ...]
    wrong: str
    said: str = ""

    def __str__(self) -> str:
        return f"case {self.seed}: {self.call} after {', '.join(self.damages)}: {self.wrong or self.said or 'a result'}"


def one(seed: int, sound: Path, place: Path) -> Outcome:
    """Make the case of a seed in ``place``, which is emptied, and say how it ended."""
    random = np.random.default_rng(seed)
    weights = np.array([weight for _, _, weight in CALLS.values()], float)
    name = list(CALLS)[random.choice(len(CALLS), p=weights / weights.sum())]
    call, patterns, _ = CALLS[name]
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(sound, place / "case")
    _make_outside(place / "outside")
    damages = _damage(place / "case", patterns, random)
    before = _state(place / "outside")
    wrong, said, result = _watched(call, place / "case")
    wrong = wrong or _trace(result, place) or ("" if _state(place / "outside") == before else "files outside changed")
    return Outcome(seed, name, tuple(damages), wrong, said)


def _damage(folder: Path, patterns: tuple[str, ...], random: np.random.Generator) -> list[str]:
    done = []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        files = sorted(folder.glob(patterns[random.integers(len(patterns))]))
        path = files[random.integers(len(files))] if files else None
        if path is None or not stat.S_ISREG(path.lstat().st_mode) or path.lstat().st_size > 10**8:
            continue  # damaged beyond recognition already
        ways = damage.for_file(path)
        way = ways[random.integers(len(ways))]
        try:
            way(path, random)
        except Exception as error:  # what is damaged already cannot be damaged in every way
            done.append(f"nothing ({type(error).__name__})")
            continue
        done.append(f"{way.__name__} of {path.relative_to(folder)}")
    if random.random() < 0.04 and (folder / "run" / "snapshots").is_dir():
        shutil.move(folder / "run" / "snapshots", folder.parent / "outside" / "snapshots")
        (folder / "run" / "snapshots").symlink_to(folder.parent / "outside" / "snapshots")
        done.append("snapshots linked out")
    return done


def _watched(call: Callable, folder: Path) -> tuple[str, str, object]:
    """Call, and say what was wrong, what an InputError said, and what came."""
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "", "", call(folder)
    except InputError as error:
        said = str(error)
        wrong = "an error of several lines" if "\n" in said else "an error of a page" if len(said) > 5000 else ""
        return wrong, said.replace(str(folder), ""), None
    except _Hang:
        return f"it took more than {SECONDS} s", "", None
    except Exception as error:
        at = error.__traceback__
        while at.tb_next:
            at = at.tb_next
        place = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}"
        return f"{type(error).__name__} at {place}: {error!s:.200}", "", None


class _Hang(BaseException):
    pass


@contextmanager
def _limited():
    def hang(*_):
        raise _Hang

    held = Path("/proc/self/statm").read_text().split()
    size = int(held[5]) * resource.getpagesize()  # data and stack, touched or not
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    signals = signal.SIGALRM, signal.SIGPROF
    earlier = [signal.signal(each, hang) for each in signals]
    resource.setrlimit(resource.RLIMIT_DATA, (size + MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 15 * SECONDS)  # others may use the cores
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        for each, handler in zip(signals, earlier, strict=True):
            signal.signal(each, handler)


def _make_outside(folder: Path) -> None:
    folder.mkdir()
    with h5py.File(folder / "secret.h5", "w") as file:
        file["x"] = np.full((5, 3), damage.SECRET)
        file["group/forward"] = np.full((5, 3), damage.SECRET)
    (folder / "secret.bin").write_bytes(struct.pack("<d", damage.SECRET) * 1000)


def _state(folder: Path) -> dict[str, bytes]:
    """Return all that lies outside; a file that a link leads to must stay as it is, too."""
    return {
        str(path): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size < 2**24
    }


def _trace(result: object, place: Path) -> str:
    """Say whether what came, or was written, holds the secret or markup of the damaged files."""
    texts = [part for part in result if isinstance(part, str)] if isinstance(result, list) else []
    if any(damage.EVIL in text for text in texts):
        return "a page holds markup of the files"
    secret = struct.pack("<d", damage.SECRET)
    if _holds(result) or any(str(damage.SECRET) in text for text in texts):
        return "what came holds a number of a file outside"
    for path in place.joinpath("case").rglob("*.nc"):
        if stat.S_ISREG(path.lstat().st_mode) and path.stat().st_size < 2**24 and secret in path.read_bytes():
            return f"{path.name} holds a number of a file outside"
    return ""


def _holds(value: object) -> bool:
    import xarray as xr

    if isinstance(value, list | tuple):
        return any(map(_holds, value))
    if isinstance(value, dict):
        return any(map(_holds, value.values()))
    if isinstance(value, xr.DataTree):
        return any(_holds(node.to_dataset()) for node in value.subtree)
    if isinstance(value, xr.Dataset):
        return any(_holds(variable.values) for variable in value.variables.values())
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and bool((value == damage.SECRET).any())
    return False


def peak() -> int:
    """Return the most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
