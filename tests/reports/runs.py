"""Synthetic analysed runs, laid out as `diagnostics.analysis.analyze` writes them."""

import json

import numpy as np
import xarray as xr

from wtdiag.diagnostics.findings.finding import Evidence, Finding, write_findings
from wtdiag.probes import PROBES

ANGLES = ("weight_angle", "error_angle", "error_angle_local", "error_angle_inherited", "error_angle_total")
DERIVED = {  # measures that need more than a layer's weights: name -> units, long name
    "step_size_number": ("1", "step-size number: the alignment step over the largest stable one"),
    "relaxation_time": ("step", "relaxation time of the slowest relevant mode"),
    "predicted_gain": ("1", "gain at which the feedback comes to rest"),
    "predicted_angle": ("degree", "angle at which the feedback comes to rest"),
    "predicted_noise_angle": ("degree", "angle that noise alone adds at rest"),
    "tracking_lag": ("1", "relaxation time times relative update of W"),
    "error_angle_product": ("degree", "error angle by the product law"),
    "attribution_angle": ("degree", "degrees of the first layer's error angle that this layer's feedback costs"),
    "attribution_loss": ("1", "share of backpropagation's decrease of the loss that this layer's feedback costs"),
}


def analysis(layers=6, snapshots=12, *, rule="ia", names=None, modes=16, log_steps=True, seed=0, stiffness=0.5):
    """An analysis in which the angles fall from chance, and errors grow with distance from the output.

    The step-size number grows to twice the stiffness.
    """
    rng = np.random.default_rng(seed)
    names = list(names or [f"fc{i + 1}" for i in range(layers)])
    layers = len(names)
    steps = np.unique(np.geomspace(1, 2000, snapshots - 1).astype(int)) if log_steps and snapshots > 1 else None
    steps = np.r_[0, steps] if steps is not None else np.arange(snapshots) * 100
    progress = np.log1p(steps)[:, None] / max(np.log1p(steps[-1]), 1)
    depth = np.arange(layers)[None] / max(layers - 1, 1)
    goal = {"bp": 0.0, "sa": 0.0, "kp": 30.0, "aa": 30.0, "wm": 13.0, "fa": 84.0}.get(rule, 50.0)
    shape = (len(steps), layers)
    angle = 90 - (90 - goal) * progress + rng.normal(0, 0.8, shape)
    angle[:, 0] = 90 + rng.normal(0, 0.3, len(steps))  # the first layer carries no error
    total = np.clip(90 - (90 - goal) * progress * depth**0.5 + rng.normal(0, 1, shape), 0, 100)
    values = {
        "weight_angle": np.abs(angle),
        "sign_agreement": 1 - np.abs(angle) / 180,
        "norm_ratio": np.exp(rng.normal(0, 0.2, shape) * progress),
        "forward_norm": 8 + progress + 0 * depth,
        "feedback_norm": 8 - progress + 0 * depth,
        "error_angle": np.c_[total[:, 1:], 0 * steps] if layers > 1 else 0 * total,
        "error_angle_local": np.abs(angle) * 0.8,
        "error_angle_inherited": total * 0.7,
        "error_angle_total": total,
        "error_norm_ratio": np.exp(rng.normal(0, 0.1, shape)),
        "weight_gain": np.exp(rng.normal(0, 0.1, shape)) * progress,
        "step_size_number": stiffness * np.exp(rng.normal(0, 0.1, shape)) * (0.2 + 0.3 * progress) * (1 + depth),
        "relaxation_time": 200 / (1 + depth) + 0 * progress,
        "predicted_gain": np.full(shape, 0.9),
        "predicted_angle": goal + 2 * depth + 0 * progress,
        "predicted_noise_angle": np.full(shape, 3.0),
        "tracking_lag": 0.02 + 0.1 * progress * depth,
        "error_angle_product": np.clip(total * 1.1, 0, 90),
        "attribution_angle": goal / layers * (1.5 - depth) + rng.normal(0, 0.3, shape),
        "attribution_loss": 0.02 * (1.5 - depth) + rng.normal(0, 0.002, shape),
    }
    for part in ("local", "inherited", "total"):
        values[f"error_angle_{part}"][:, 0] = np.nan  # nothing is sent below the first layer
    for side in ("forward", "feedback"):
        spectrum = 4 * np.sqrt(np.linspace(1, 0.02, modes)) * rng.uniform(0.6, 1.6, (*shape, 1))
        spectrum[:, 0, modes // 2 :] = np.nan
        values[f"{side}_singular_values"] = spectrum
        values[f"{side}_spectral_norm"] = spectrum[..., 0]
        values[f"{side}_stable_rank"] = np.nansum(spectrum**2, -1) / spectrum[..., 0] ** 2
    data = {}
    for name, array in values.items():
        if name in DERIVED:
            units, long_name = DERIVED[name]
            attrs = {"units": units, "long_name": long_name, "equation": "", "reference": ""}
        else:
            attrs = {key: getattr(PROBES[name], key) for key in ("units", "long_name", "equation", "reference")}
        dims = ("step", "layer", "mode")[: array.ndim]
        data[name] = (dims, array, attrs)
        if name in ANGLES or name == "sign_agreement":
            chance, spread = (90.0, 57.3 / 64) if name in ANGLES else (0.5, 0.5 / 64)
            data[f"{name}_null"] = ("layer", np.full(layers, chance))
            data[f"{name}_null_sd"] = ("layer", np.full(layers, spread))
        if name.endswith("singular_values"):
            data[f"{name}_null"] = (dims, 0.9 * array)
            data[f"{name}_null_sd"] = (dims, 0.05 * array)
    about = {"units": "1", "long_name": "sum of the logarithms of the norm ratios", "equation": "", "reference": ""}
    data["log_norm_ratio_sum"] = ("step", np.log(values["norm_ratio"][:, 1:]).sum(axis=1), about)
    coords = {
        "step": steps,
        "layer": names,
        "kind": ("layer", ["Linear"] * layers),
        "carries_error": ("layer", np.r_[0, np.ones(layers - 1, int)] if layers > 1 else [1]),
    }
    return xr.Dataset(data, coords=coords)


def finding(kind="step-too-large", layer="fc3", severity="high", summary="S of fc3 is 3.2", **fields):
    """A finding with one piece of evidence."""
    evidence = (Evidence("step_size_number", 3.2, 1.0, ">", step=40),)
    given = {"first_step": 40, "last_step": 200, "confidence": 0.95, "evidence": evidence}
    given |= {"meaning": "The feedback grows.", "advice": ("Lower the step.",)}
    given |= {"equation": "S = ηλ/2", "reference": "us"}
    return Finding(kind=kind, layer=layer, severity=severity, summary=summary, **(given | fields))


def write_run(
    path, dataset, *, rule="ia", status="finished", accuracy=0.965, last_step=2000, findings=None, events=(), **config
):
    """Write a run directory that holds ``dataset`` as its analysis."""
    path.mkdir(parents=True)
    content = {
        "wtdiag_version": "0.1.0",
        "versions": {"python": "3.12.1", "torch": "2.15.0", "numpy": "2.4.6"},
        "git_commit": "0123456789abcdef",
        "command": f"wtdiag train --rule {rule} --model mlp --seed 0 --out runs/{path.name}",
        "status": status,
        "settings": {"model": "mlp", "data": "digits", "seed": 0, "optimizer": {"name": "sgd", "lr": 0.05}},
        "rule": {"name": rule, "amp": 0.04, "null": 0.01, "decay": 0.0025},
        **config,
    }
    (path / "config.json").write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    with (path / "metrics.jsonl").open("w") as lines:
        for step in range(0, last_step + 1, 10):
            rise = 1 - np.exp(-step / 300)
            row = {"step": step, "loss": 2.3 * (1 - rise) + 0.05 + rng.uniform(0, 0.05), "lr": 0.05}
            row["accuracy"] = 0.1 + (accuracy - 0.1) * rise + rng.uniform(-0.03, 0.03)
            if step % 200 == 0:
                row["test_loss"] = 2.3 * (1 - rise) + 0.1
                row["test_accuracy"] = accuracy if step == last_step else 0.1 + (accuracy - 0.1) * rise
            lines.write(json.dumps(row) + "\n")
        for step, event in events:
            lines.write(json.dumps({"step": step, "event": event}) + "\n")
    if findings is not None:
        write_findings(findings, path / "findings.json")
    dataset.to_netcdf(path / "analysis.nc", engine="h5netcdf")
    return path
