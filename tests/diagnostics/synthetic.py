"""Synthetic analysed runs for the diagnosis: a healthy one, to plant what one likes in."""

import numpy as np
import pandas as pd
import xarray as xr

STEPS = np.array([0, 1, 3, 10, 30, 80, 150, 230])
LAYERS = [f"fc{number}" for number in range(1, 7)]
CONFIG = {"status": "finished", "rule": {"name": "sa", "self": 0.2, "decay": 0.2}}


def healthy(steps=STEPS, layers=LAYERS):
    """What a run of symmetric alignment looks like that lacks nothing."""
    rng = np.random.default_rng(0)
    fade = np.exp(-np.asarray(steps) / 5.0)[:, None] * np.ones(len(layers))
    wobble = 1 + 0.01 * rng.random(fade.shape)
    depth = np.arange(len(layers))[::-1] * np.ones_like(fade)
    values = {
        "weight_angle": 2 + 88 * fade,
        "projection_angle": 2 + 88 * fade,
        "sign_agreement": 0.98 - 0.48 * fade,
        "norm_ratio": 1 + 0.1 * fade,
        "forward_norm": 8 + 0.1 * (1 - fade),
        "feedback_norm": 8 * wobble,
        "forward_effective_rank": 50 * wobble,
        "feedback_effective_rank": 48 * wobble,
        "error_angle": np.minimum(3 * depth + 80 * fade, 90),
        "error_angle_local": 12 + 70 * fade,
        "error_angle_inherited": 3 + 2 * depth,
        "error_angle_total": 13 + 2 * depth,
        "error_norm_ratio": wobble,
        "below_floor": 0 * fade,
        "sent_effective_rank": 8 * wobble,
        "sent_effective_rank_exact": 9 * wobble,
        "residual_growth": wobble,
        "dead_units": 0.05 + 0 * fade,
        "activation_norm": wobble,
        "radial_cosine": 1e-6 * wobble,
        "step_size_number": 0.1 * wobble,
        "relaxation_time": 5 * wobble,
        "predicted_gain": wobble,
        "predicted_angle": 1 + 0 * fade,
        "predicted_noise_angle": 1 + 0 * fade,
        "rest_distance": 0.02 + 1.4 * fade,
        "relative_step": 0.1 * wobble,
        "travel_time": 0.2 + 14 * fade,
        "relative_update": 0.01 * wobble,
        "tracking_lag": 0.05 * wobble,
        "log_norm_ratio_sum": 0 * fade[:, 0],
        "attribution_angle": 2 + 0 * fade,
    }
    for name in ("error_angle_local", "error_angle_inherited", "error_angle_total"):
        values[name][:, 0] = np.nan  # the first layer sends nothing on
    for name, mean, sd in (("weight_angle", 90, 0.9), ("projection_angle", 90, 2.0), ("sign_agreement", 0.5, 0.01)):
        values |= {f"{name}_null": mean + 0 * fade, f"{name}_null_sd": sd + 0 * fade}
    variables = {name: (("step", "layer")[: array.ndim], array.copy()) for name, array in values.items()}
    carries = np.arange(len(layers)) > 0
    return xr.Dataset(variables, {"step": steps, "layer": layers, "carries_error": ("layer", carries)})


def metrics(loss_at_end=0.05, steps=230):
    """A loss that falls from that of chance."""
    step = np.arange(1, steps + 1)
    loss = loss_at_end + (2.3 - loss_at_end) * np.exp(-step / 30)
    return pd.DataFrame({"step": step, "loss": loss, "lr": 0.05, "feedback_lr": 1.0})


def plant(analysis, layer, since=3, **values):
    """Change measures in one layer from a snapshot on."""
    for name, value in values.items():
        analysis[name][since:, analysis.layer.values.tolist().index(layer)] = value
    return analysis
