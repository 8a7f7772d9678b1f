"""Synthetic results of studies, sweeps and transfers, laid out as `diagnostics.comparison.results` requires."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from wtdiag.diagnostics.comparison.results import check_results

EVIL = ("bp", '<script>alert("x")</script>', '#panic("x") $x$ *b* @ref ` \\ ]', "x" * 80, "重み\x07")
SETTINGS = json.dumps({"model": "mlp", "data": "digits", "coefficients": {"amp": 0.04}})


def put(results, folder):
    """Check results as their readers do, and write them."""
    check_results(results)
    Path(folder).mkdir(parents=True, exist_ok=True)
    results.to_netcdf(Path(folder) / "results.nc", engine="h5netcdf")
    return Path(folder)


def texts(shape, text):
    return np.full(shape, text, dtype=object)


def labels(levels):
    return np.array(levels, dtype=object if isinstance(levels[0], str) else None)


def grid(rules=("bp", "fa", "ia"), seeds=5, *, tuned=True, **factors):
    """A grid in which the k-th method loses k points at the first level, twice that at the second..."""
    coords = {name: labels(levels) for name, levels in {"rule": rules, **factors}.items()}
    coords["seed"] = np.arange(seeds)
    dims, shape = tuple(coords), tuple(map(len, coords.values()))
    index = np.indices(shape)
    level = sum(index[1:-1], np.zeros(shape))
    noise = np.random.default_rng(0).normal(0, 0.004, shape)
    accuracy = np.clip(0.95 - 0.01 * index[0] * (1 + level) + noise, 0, 1)
    angle = np.where(index[0] == 0, 0.0, 20.0 + 5 * index[0] + level + 100 * noise)
    runs = texts(shape, "")
    for at in np.ndindex(*shape):
        runs[at] = "cells/" + ",".join(str(coords[dim][i]).replace("/", "_") for dim, i in zip(dims, at, strict=True))
    data = {
        "status": texts(shape, "finished"),
        "reason": texts(shape, ""),
        "run": runs,
        "test_accuracy": accuracy,
        "test_loss": 2 * (1 - accuracy),
        "weight_angle": angle,
        "error_angle": 1.5 * angle,
        "steps": np.full(shape, 900.0),
        "seconds": np.full(shape, 4.0),
    }
    if tuned:
        data["tuned_lr"] = 0.01 * 2.0 ** index[0]
    attrs = {"kind": "grid", "title": "Two routes", "settings": SETTINGS, "reference": "bp"}
    return xr.Dataset({name: (dims, values) for name, values in data.items()}, coords, attrs)


def ended(results, status, reason="", **at):
    """End one cell otherwise."""
    place = tuple(results.indexes[dim].get_loc(at[dim]) for dim in results["status"].dims)
    results["status"].values[place] = status
    results["reason"].values[place] = reason
    for name in ("test_accuracy", "test_loss", "weight_angle", "error_angle"):
        if name in results:
            results[name].values[place] = {"test_accuracy": 0.1}.get(name, np.nan) if status == "diverged" else np.nan


def sweep(rules=("bp", "wm-reg", "ia"), trials=40):
    """A search in which what lies beyond S = decay = 1 diverges, and a quarter of it is pruned."""
    rng = np.random.default_rng(0)
    shape = len(rules), trials
    amp, decay = 10 ** rng.uniform(-3, 1, shape), 10 ** rng.uniform(-3, 1, shape)
    lr = 10 ** rng.uniform(-3, 0, shape)
    accuracy = np.clip(0.95 - 0.1 * np.abs(np.log10(lr) + 1.5) - 0.02 * np.arange(len(rules))[:, None], 0, 1)
    status = np.where(decay > 1, "diverged", "finished").astype(object)
    status[:, ::4] = np.where(decay[:, ::4] > 1, "pruned", status[:, ::4])
    status[0] = "finished"
    accuracy[status == "diverged"] = 0.1
    accuracy[status == "pruned"] = np.nan
    amp[0], decay[0] = np.nan, np.nan
    places = np.geomspace(1e-3, 10, 13)
    number = np.broadcast_to(places, (len(rules), 13, 13)).copy()  # the decay, whatever the amp
    number[0] = np.nan
    over, space = ("rule", "trial"), {"low": 1e-3, "high": 10.0, "log": True}
    data = {
        "lr": lr, "amp": amp, "decay": decay, "status": status, "reason": texts(shape, ""),
        "validation_accuracy": accuracy, "step_size_number": decay, "log_gain": np.log(amp / decay),
        "steps": np.full(shape, 900.0), "seconds": np.full(shape, 2.0),
    }  # fmt: skip
    importance = rng.dirichlet([1, 1, 1], len(rules))
    importance[0] = [1, np.nan, np.nan]
    attrs = {
        "kind": "sweep", "title": "Coefficients", "settings": SETTINGS, "sampler": "random", "trials": trials,
        "reference": "bp", "map": '["amp", "decay"]', "space": json.dumps({"lr": space, "amp": space, "decay": space}),
    }  # fmt: skip
    return xr.Dataset(
        {name: (over, values) for name, values in data.items()}
        | {
            "importance": (("rule", "parameter"), importance),
            "predicted_step_size_number": (("rule", "map_x", "map_y"), number),
            "predicted_log_gain": (("rule", "map_x", "map_y"), np.zeros_like(number) + 0 * number),
        },
        {"rule": labels(rules), "parameter": labels(["lr", "amp", "decay"]), "map_x": places, "map_y": places}
        | {"trial": np.arange(trials)},
        attrs,
    )


def transfer(rules=("bp", "wm-reg", "ia"), architectures=("mlp 4", "deep", "conv"), seeds=3, top=2):
    """A transfer in which the k-th method loses 5 k points for each step away from the source."""
    dims = ("rule", "configuration", "architecture", "seed")
    shape = len(rules), top, len(architectures), seeds
    rule, rank, place, seed = np.indices(shape)
    accuracy = 0.9 - 0.05 * rule * place - 0.01 * rank + 0.002 * seed
    data = {
        "test_accuracy": accuracy, "test_loss": 1 - accuracy, "status": texts(shape, "finished"),
        "reason": texts(shape, ""), "steps": np.full(shape, 900.0), "seconds": np.full(shape, 3.0),
    }  # fmt: skip
    coords = {"rule": labels(rules), "configuration": np.arange(top), "architecture": labels(architectures)}
    attrs = {"kind": "transfer", "title": "Deeper", "settings": SETTINGS, "source": architectures[0], "reference": "bp"}
    found = xr.Dataset(
        {name: (dims, values) for name, values in data.items()}, coords | {"seed": np.arange(seeds)}, attrs
    )
    return found.assign(lr=(dims[:2], np.geomspace(0.01, 0.1, len(rules) * top).reshape(shape[:2])))


def blocks(sections, kind):
    """All blocks of a kind, in order."""
    return [block for section in sections for block in section.blocks if isinstance(block, kind)]
