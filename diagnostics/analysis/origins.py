"""What the values of an analysis were measured from, so that earlier values are used again, but never stale ones.

An analysis holds two digests for each of its snapshots, as attributes of JSON by step. That in ``snapshots`` is of the
snapshot and the probe batch. That in ``measured`` is of all that the values depend on: the snapshot, the batch, the
network and the rates of the step, the source of wtdiag and the versions of its libraries.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from wtdiag.diagnostics.analysis.layout import NULLS
from wtdiag.probes import Probe
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import open_regular
from wtdiag.probes.records.schema import PROBE_BATCH, Run, snapshot_path

Context = Callable[[int], str | None]
"""Function that returns for a step what signals depend on besides snapshot and batch; None if that cannot be told."""

_ROOMS = "probes", "trainers", "diagnostics/analysis"
_LIBRARIES = "numpy", "scipy", "torch", "torchvision", "h5py"
_BLOCK = 2**20


@dataclass(frozen=True)
class Origin:
    """What one snapshot's values come from.

    Attributes
    ----------
    snapshot : str
        Digest of the snapshot and the probe batch.
    key : str
        Digest of everything; empty if it cannot be told.
    """

    snapshot: str
    key: str


def origins(run: Run, steps: Sequence[int], probes: Sequence[Probe], context: Context | None) -> dict[int, Origin]:
    """Return what the values of each step come from.

    The key is empty if a probe is not from wtdiag itself, because the functions that it calls are not known.
    """
    of_batch = _of_file(run.path / PROBE_BATCH)
    ours = all(probe.function.__module__.startswith("wtdiag.probes.measures.") for probe in probes)
    found = {}
    for step in steps:
        snapshot = _digest(_of_file(snapshot_path(run.path, step)), of_batch)
        known = "weights" if context is None else context(step)
        found[step] = Origin(snapshot, "" if known is None or not ours else _digest(snapshot, _of_source(), known))
    return found


def attrs(names: Sequence[str], origins: Mapping[int, Origin], failed: Collection[int] = ()) -> dict[str, str]:
    """Return the attributes that say what an analysis was measured from.

    Steps that ``failed`` have no key, so that they are measured again.
    """
    keys = {str(step): origin.key for step, origin in origins.items() if origin.key and step not in failed}
    snapshots = json.dumps({str(step): origin.snapshot for step, origin in origins.items()})
    measured = json.dumps({"names": list(names), "keys": keys})
    return {"snapshots": snapshots, "measured": measured}


def unchanged(analysis: xr.Dataset | None, names: Sequence[str], origins: Mapping[int, Origin]) -> set[int]:
    """Return the steps of which an earlier analysis holds all of these measures, from the same as they would be now."""
    measured = _parsed(analysis, "measured")
    keys, listed = measured.get("keys"), measured.get("names")
    if analysis is None or not isinstance(keys, dict) or not isinstance(listed, list):
        return set()
    there = {name for name in listed if isinstance(name, str) and name in analysis}
    if not set(names) <= there:
        return set()
    steps = set(analysis["step"].values.tolist())
    return {
        step for step, origin in origins.items() if step in steps and origin.key and origin.key == keys.get(str(step))
    }


def enriched(analysis: xr.Dataset, earlier: xr.Dataset | None) -> tuple[xr.Dataset, list[str]]:
    """Return an analysis with the variables that only an earlier one of the same snapshots holds, and their names.

    They belong together if both have the same layers and share steps, and all shared steps have the same snapshot and
    probe batch. At steps that the earlier one lacks, its variables are NaN.

    Examples
    --------
    >>> angle = ("step", "layer"), [[90.0]]
    >>> both = {"step": [0], "layer": ["fc"]}
    >>> poor = xr.Dataset({"norm_ratio": angle}, both, {"snapshots": '{"0": "ab"}'})
    >>> rich = xr.Dataset({"norm_ratio": angle, "weight_angle": angle}, both, {"snapshots": '{"0": "ab"}'})
    >>> enriched(poor, rich)[1], enriched(poor, rich.assign_attrs(snapshots='{"0": "cd"}'))[1]
    (['weight_angle'], [])
    """
    if earlier is None:
        return analysis, []
    now, before = _parsed(analysis, "snapshots"), _parsed(earlier, "snapshots")
    names = [str(name) for name in earlier.data_vars if name not in analysis]
    shared = set(map(str, analysis["step"].values.tolist())) & set(map(str, earlier["step"].values.tolist()))
    same = all(step in now and now[step] == before.get(step) for step in shared)
    if not names or not shared or not same or analysis["layer"].values.tolist() != earlier["layer"].values.tolist():
        return analysis, []
    kept = earlier[names].drop_vars([name for name in earlier.coords if name not in ("step", "layer")])
    kept = kept.reindex(step=analysis["step"])
    modes = max(analysis.sizes.get("mode", 0), kept.sizes.get("mode", 0))  # another probe may measure more of them
    return _padded(analysis, modes).assign(_padded(kept, modes).data_vars), names


def _padded(analysis: xr.Dataset, modes: int) -> xr.Dataset:
    return analysis.pad({"mode": (0, modes - analysis.sizes["mode"])}) if "mode" in analysis.dims else analysis


def measures_kept(names: Sequence[str]) -> list[str]:
    """Return the names of measures among those of variables, without their chance levels."""
    return [name for name in names if not name.endswith(NULLS)]


def _parsed(analysis: xr.Dataset | None, name: str) -> dict[str, Any]:
    """Return an attribute's JSON object; empty if there is none, as in analyses of earlier versions."""
    try:
        found = json.loads(analysis.attrs[name]) if analysis is not None else {}
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def _of_file(path: Path) -> str:
    """Return the digest of a file's content; empty if there is no such file, or none that can be read.

    It is empty too if the file is mostly holes, which cost nothing to make and as long to read as what fills a disk.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if status.st_blocks * 512 < status.st_size // 2:
                return ""
            digest = hashlib.blake2b(digest_size=16)
            while block := file.read(_BLOCK):
                digest.update(block)
            return digest.hexdigest()
    except (InputError, OSError):
        return ""  # whoever measures it says what is wrong with it


@cache
def _of_source() -> str:
    """Return the digest of all source that a value depends on, and of the versions of the libraries."""
    root = Path(__file__).resolve().parents[2]
    files = sorted(path for room in _ROOMS for path in (root / room).rglob("*.py"))
    versions = [f"{name} {version(name)}" for name in _LIBRARIES]
    return _digest(*versions, *(f"{path.relative_to(root).as_posix()} {_of_file(path)}" for path in files))
