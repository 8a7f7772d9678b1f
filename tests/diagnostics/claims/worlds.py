"""Worlds in which every claim holds, and worlds in which none does."""

import json

import numpy as np
import xarray as xr

from wtdiag.diagnostics.claims import decide
from wtdiag.diagnostics.comparison.results import StudyResults

NAN = np.nan
DEPTHS, NOISE = (2, 16), (0.0, 0.01, 0.1)
SETTINGS = json.dumps({"model": "mlp", "data": "digits"})
RANKS = {"ldfa": 10, "ldfa-low": 2}


# accuracy at the least depth, at the greatest, and what noise 0.01 costs; noise 0.1 costs 0.2 more
HOLD = {
    "bp": (0.95, 0.95, 0.02), "fa": (0.90, 0.50, 0.05), "usf": (0.90, 0.80, 0.05), "frsf": (0.90, 0.85, 0.05),
    "brsf": (0.90, 0.70, 0.05), "wm": (0.95, 0.93, 0.05), "kp": (0.95, 0.945, 0.02), "sa": (0.95, 0.95, 0.015),
    "aa": (0.95, 0.955, 0.02), "ia": (0.94, 0.80, 0.05), "pfa": (0.95, 0.945, 0.02), "soft": (0.95, 0.92, 0.02),
    "ldfa": (0.95, 0.94, 0.02), "ldfa-low": (0.95, 0.80, 0.02),
}  # fmt: skip
FAIL = {
    "bp": (0.95, 0.95, 0.02), "fa": (0.95, 0.945, 0.02), "usf": (0.9, 0.95, 0.02), "frsf": (0.9, 0.94, 0.02),
    "brsf": (0.9, 0.8, 0.02), "wm": (0.9, 0.6, 0.2), "kp": (0.9, 0.6, 0.2), "sa": (0.9, 0.6, 0.2),
    "aa": (0.9, 0.6, 0.2), "ia": (0.8, 0.94, 0.02), "pfa": (0.9, 0.6, 0.2), "soft": (0.9, 0.6, 0.2),
    "ldfa": (0.9, 0.5, 0.2), "ldfa-low": (0.9, 0.7, 0.2),
}  # fmt: skip
FALL_TO_NOISE = FAIL | dict.fromkeys(("sa", "aa", "kp"), (0.9, 0.93, 0.2))  # near backprop until there is noise


def grid(table, seeds=5, settings=SETTINGS):
    """Return a grid; seeds differ as a whole by up to 4 points, which pairing takes out, and each run by 0.1 or so."""
    rng = np.random.default_rng(0)
    costs = np.array([[0, cost, cost + 0.2] for _, _, cost in table.values()])
    accuracy = np.array([ends[:2] for ends in table.values()])[:, :, None, None] - costs[:, None, :, None]
    accuracy = accuracy + rng.uniform(-0.02, 0.02, seeds) + rng.normal(0, 0.001, (*accuracy.shape[:3], seeds))
    dims = {"rule": list(table), "depth": list(DEPTHS), "relative_noise": list(NOISE), "seed": list(range(seeds))}
    shape = tuple(map(len, dims.values()))
    names = "test_accuracy", "test_loss", "weight_angle", "error_angle", "steps", "seconds"
    variables = {
        name: (tuple(dims), accuracy.clip(0, 1) if name == "test_accuracy" else np.zeros(shape)) for name in names
    }
    texts = {"status": "finished", "reason": "", "run": "cells/x"}
    variables |= {name: (tuple(dims), np.full(shape, text, object)) for name, text in texts.items()}
    attrs = {"kind": "grid", "title": "", "settings": settings, "classes": 10, "methods": ranked(RANKS)}
    return xr.Dataset(variables, dims, attrs)


def ranked(ranks):
    """Return methods by ldfa of such ranks, as results hold them."""
    return json.dumps({name: {"rule": "ldfa", "coefficients": {"rank": rank}} for name, rank in ranks.items()})


def sweep(ia, wm, trials=40, sampler="random"):
    """Return a search in which so many configurations of two rules come to 0.9, the rest to 0.5."""
    accuracy = np.array([np.where(np.arange(trials) < count, 0.9, 0.5) for count in (trials, ia, wm)])
    dims = {"rule": ["bp", "ia", "wm-reg"], "trial": list(range(trials))}
    names = "validation_accuracy", "steps", "seconds", "step_size_number", "log_gain"
    variables = {name: (tuple(dims), accuracy) for name in names}
    variables |= {
        name: (tuple(dims), np.full(accuracy.shape, text, object))
        for name, text in (("status", "finished"), ("reason", ""))
    }
    attrs = {
        "kind": "sweep",
        "title": "",
        "settings": SETTINGS,
        "classes": 10,
        "space": "{}",
        "sampler": sampler,
        "reference": "bp",
    }
    return xr.Dataset(variables, dims, attrs)


def transfer(ia, wm, seeds=5, configurations=5):
    """Return a transfer from which two rules come with such accuracies on source and target; backprop's is 0.9."""
    rng = np.random.default_rng(1)
    mean = np.array([(0.9, 0.9), ia, wm])[:, None, :, None] + np.zeros((3, configurations, 2, seeds))
    accuracy = mean + rng.normal(0, 0.002, mean.shape)
    dims = {
        "rule": ["bp", "ia", "wm-reg"],
        "configuration": list(range(configurations)),
        "architecture": ["mlp4", "conv"],
        "seed": list(range(seeds)),
    }
    variables = {name: (tuple(dims), accuracy) for name in ("test_accuracy", "test_loss", "steps", "seconds")}
    variables |= {
        name: (tuple(dims), np.full(mean.shape, text, object))
        for name, text in (("status", "finished"), ("reason", ""))
    }
    attrs = {"kind": "transfer", "title": "", "settings": SETTINGS, "classes": 10, "source": "mlp4", "reference": "bp"}
    return xr.Dataset(variables, dims, attrs)


def world(holds, seeds=5, trials=40):
    if holds:
        parts = grid(HOLD, seeds), sweep(trials - 2, trials // 5, trials), transfer((0.88, 0.8), (0.88, 0.3), seeds)
    else:
        parts = grid(FAIL, seeds), sweep(trials // 5, trials - 2, trials), transfer((0.88, 0.3), (0.85, 0.86), seeds)
    return StudyResults(parts[0], {"all": parts[1]}, {"all": parts[2]})


def the(name, evidence):
    (result,) = decide(evidence, [name])
    assert result.network == ""
    return result


def on(name, results):
    return the(name, StudyResults(results))


def cell(results, name, value, **at):
    """Return results with another value at one place."""
    changed = results.copy(deep=True)
    changed[name].loc[at] = value
    return changed
