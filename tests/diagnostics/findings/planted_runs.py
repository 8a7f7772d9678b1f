"""A run with one fault of each kind in one layer."""

import numpy as np

from tests.diagnostics.synthetic import CONFIG, healthy, metrics, plant
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.diagnostics.findings.kinds.base import FAULT

DIVERGED = CONFIG | {"status": "diverged", "diverged": {"step": 17, "what": "norm of the feedback of fc4"}}
FAULTS = [name for name, kind in KINDS.items() if kind.order == FAULT]
"""Kinds that a fault of one layer is planted for; test_training has the others."""


def run_of(kind):
    """A run with one fault of this kind in fc4: its analysis, config and metrics."""
    analysis, config, log = healthy(), CONFIG, metrics()
    match kind:
        case "step-too-large":
            plant(analysis, "fc4", step_size_number=2.5)
        case "divergence":
            config = DIVERGED
        case "forward-step-too-large":
            plant(analysis, "fc4", relative_update=1.5)
        case "feedback-too-large":
            plant(analysis, "fc4", norm_ratio=10.0, predicted_gain=10.0)
        case "feedback-too-small":
            plant(analysis, "fc4", norm_ratio=0.1)
        case "bn-runaway":
            plant(analysis, "fc4", forward_norm=100.0, feedback_norm=100.0)
        case "frozen-feedback":
            plant(analysis, "fc4", since=0, feedback_norm=8.0, weight_angle=90.2, rest_distance=1.4)
        case "feedback-too-slow":
            plant(analysis, "fc4", since=0, relaxation_time=5000.0, tracking_lag=5.0, rest_distance=1.4)
            plant(analysis, "fc4", since=0, weight_angle=90.2)
        case "noisy-feedback":
            plant(analysis, "fc4", rest_distance=1.5, weight_angle=60.0)
        case "adam-step-too-large":
            plant(analysis, "fc4", since=0, relative_step=3.0, rest_distance=1.5, relaxation_time=np.nan)
        case "adam-step-too-small":
            plant(analysis, "fc4", since=0, travel_time=500.0, rest_distance=1.4, relaxation_time=np.nan)
        case "angle-at-ceiling":
            plant(analysis, "fc4", predicted_angle=50.0, weight_angle=51.0)
        case "not-aligning":
            plant(analysis, "fc4", since=0, weight_angle=90.3)
        case "sign-flip":
            plant(analysis, "fc4", weight_angle=170.0, sign_agreement=0.05)
        case "error-rank-collapse":
            plant(analysis, "fc4", sent_effective_rank=1.0)
        case "residual-growth":
            plant(analysis, "fc4", residual_growth=50.0)
        case "rank-collapse":
            plant(analysis, "fc4", feedback_effective_rank=1.0)
        case "inherited-error":
            for layer in ("fc2", "fc3", "fc4"):
                plant(analysis, layer, error_angle_inherited=70.0, error_angle_total=75.0)
        case "signal-below-floor":
            for layer in ("fc1", "fc2", "fc3", "fc4"):
                plant(analysis, layer, dead_units=1.0, below_floor=1.0)
    return analysis, config, log
