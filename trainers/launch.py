"""From what was typed to the runs that are meant: folders, settings, what is done already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probes.errors import InputError
from probes.schema import CONFIG, read_json
from trainers.schedules import Coefficient
from trainers.settings import Settings, from_mapping, read_config

ENDED = ("finished", "diverged")
"""Status of a run that has nothing left to do."""
_WHEREABOUTS = ("device", "data_dir", "download")
"""Settings that a run may change when it goes on: where it is made is not what it is."""


def parse_coefficients(words: Sequence[str]) -> dict[str, Coefficient]:
    """Read NAME=VALUE words; a VALUE that is no number stays text.

    Raises
    ------
    InputError
        If a word has no name or no value.

    Examples
    --------
    >>> parse_coefficients(["amp=0.1", "decay=linear:0.1:0", "inputs=noise"])
    {'amp': 0.1, 'decay': 'linear:0.1:0', 'inputs': 'noise'}
    """
    result: dict[str, Coefficient] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise InputError(f"coefficient: expected NAME=VALUE, got {word!r}")
        try:
            result[name] = float(value)
        except ValueError:
            result[name] = value
    return result


def runs_to_train(
    rules: Sequence[str],
    given: Mapping[str, Any],
    *,
    config: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
) -> dict[Path, Settings]:
    """Return the settings of each run by its folder; one rule trains in ``out``, several in a folder each below it.

    Parameters
    ----------
    rules
        Names; none: the config file's, or feedback alignment.
    given
        Settings that were given one by one; they go before the config file's.
    config
        A file of settings.
    out
        Where to; default below ``runs``.
    resume
        Take the settings of runs that exist from them.

    Raises
    ------
    InputError
        If a setting cannot be used, or is not the one that a run to be resumed was made with; if nothing but a folder
        to resume is given, and it holds no run.

    Examples
    --------
    >>> {path.as_posix(): s.rule for path, s in runs_to_train(["fa", "bp"], {"lr": 0.1}, out=Path("x")).items()}
    {'x/fa': 'fa', 'x/bp': 'bp'}
    """
    wanted = (read_config(config) if config else {}) | dict(given)
    if resume and out is not None and not rules and "rule" not in wanted:
        found = [out] if (out / CONFIG).exists() else sorted(path.parent for path in out.glob(f"*/{CONFIG}"))
        if found:
            return {path: _stored(path, wanted) for path in found}
    unspecified = resume and not rules and not wanted
    listed = wanted.pop("rule", "fa")
    source = str(config or "command line")
    words = list(rules) or (listed if isinstance(listed, list) else [listed])
    if not words or not all(isinstance(word, str) for word in words):
        raise InputError(f"{source}: rule: expected a name or a list of names, got {listed!r}")
    names = list(dict.fromkeys(words))
    runs = {}
    for name in names:
        settings = from_mapping(wanted | {"rule": name}, source)
        single = out or Path("runs", f"{name}-{settings.model}-{settings.data}-{settings.seed}")
        path = single if len(names) == 1 else (out or Path("runs")) / name
        exists = resume and (path / CONFIG).exists()
        if unspecified and not exists:
            raise InputError(f"resume: {path} holds no run; expected a run directory, or the settings of a new run")
        runs[path] = _stored(path, wanted | {"rule": name}) if exists else settings
    return runs


def status(run: Path) -> str:
    """Return the status of a run directory: "none" where there is no run yet."""
    return str(read_json(run / CONFIG).get("status", "running")) if (run / CONFIG).exists() else "none"


def _stored(path: Path, wanted: Mapping[str, Any]) -> Settings:
    """Return the settings that a run was made with, if what is wanted agrees with them."""
    stored = read_config(path / CONFIG)
    for name, value in wanted.items():
        if name not in _WHEREABOUTS and (name not in stored or stored[name] != value):
            raise InputError(
                f"resume: {path} was made with {name}={stored.get(name)!r}, not {value!r}; "
                f"leave {name} out, or start another run"
            )
    moved = {name: value for name, value in wanted.items() if name in _WHEREABOUTS}
    return from_mapping(stored | moved, str(path / CONFIG))
