"""The origin of a run as plain data: enough to rebuild it, and to tell whether it can be repeated bitwise."""

from __future__ import annotations

import dataclasses
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from wtdiag.probes.records.config import command_options
from wtdiag.probes.version import __version__
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import converted_share, learners
from wtdiag.trainers.record.staging import plain_name

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "xarray", "h5py")


def describe(settings: Settings, *, shape: tuple[int, ...], classes: int, majority: float) -> dict[str, Any]:
    """Return the content of a new run's config.json; it holds no time, so the same command here gives it again."""
    rule = settings.rule_at(0.0, 0.0)
    return {
        **environment(),
        "command": command(settings),
        "status": "running",
        "settings": settings.as_dict(),
        "rule": {"name": rule.name, **dataclasses.asdict(rule), **settings.coefficients},
        "network": {"shape": list(shape), "classes": classes, "majority": majority},
    }


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Return the entries of config.json that can be derived from the model and the program."""
    learn = learners(model)
    rules = {plain_name(name): {"name": each.rule.name, **dataclasses.asdict(each.rule)} for name, each in learn}
    first, *others = rules.values()
    rule = first if all(other == first for other in others) else {"name": "mixed", "layers": rules}
    return {
        **environment(),
        "command": shlex.join(sys.argv),
        "status": "running",
        "settings": {},
        "rule": rule,
        "network": None,
        "converted": converted_share(model),
    }


def describe_pairs(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of config.json for a model that other code converted; ``rule`` is the entry of its rule."""
    return {
        **environment(),
        "command": shlex.join(sys.argv),
        "status": "running",
        "settings": {},
        "network": None,
        "foreign": "Recorder",
        **rule,
    }


@cache
def environment() -> Mapping[str, Any]:
    """Return the versions of wtdiag, Python and the main packages, and wtdiag's git commit if it is a checkout."""
    return MappingProxyType(
        {
            "wtdiag_version": __version__,
            "git_commit": _git_commit(),
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        }
    )


def command(settings: Settings) -> str:
    """Return the command line that makes the same run, without the option for its folder.

    Examples
    --------
    >>> command(Settings(rule="kp", coefficients={"decay": 0.01}, batch_norm=False, lr=0.1))
    'wtdiag train --rule kp -c decay=0.01 --no-batch-norm --lr 0.1'
    """
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    changed = {field.name for field in dataclasses.fields(settings) if given[field.name] != field.default}
    words = command_options({name: value for name, value in given.items() if name in {*changed, "rule"}})
    return shlex.join(["wtdiag", "train", *words])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        words = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
