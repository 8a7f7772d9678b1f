"""Which changed settings a run could be made again with, as advice on it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import Changes, settings_with_role
from wtdiag.probes.records.schema import CONFIG
from wtdiag.trainers import models
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.launch import runs_to_train
from wtdiag.trainers.observe.open_run import ModelRun, sizes


def accepts_of(run: ModelRun) -> Callable[[Changes], bool] | None:
    """Return whether ``wtdiag train --config`` accepts changes to the settings of a run and they change anything.

    None for a run of the user's own loop, and for one whose settings this version does not accept itself.
    """
    try:
        now = run.settings() if run.is_ours else None
    except InputError:
        now = None
    if now is None:
        return None

    def accepts(changes: Changes) -> bool:
        try:
            (settings,) = runs_to_train([], changes, config=run.path / CONFIG, out=run.path).values()
            if not changes.keys().isdisjoint(settings_with_role("architecture")):
                return _shapes(settings, run) != _shapes(now, run)
        except InputError:
            return False
        return _values(settings) != _values(now)

    return accepts


def _values(settings: Settings) -> dict[str, Any]:
    return settings.as_dict() | {"coefficients": (settings.rule_at(0.0, 0.0), settings.rule_at(1.0, settings.epochs))}


def _shapes(settings: Settings, run: ModelRun) -> dict[str, torch.Size]:
    """Return the shapes of the tensors of a model, which is built without memory for them."""
    shape, classes = sizes(run.config["network"], str(run.path / CONFIG))
    given = {"depth": settings.depth, "width": settings.width, "batch_norm": settings.batch_norm}
    with torch.device("meta"):
        model = models.build(settings.model, shape=shape, classes=classes, **given)  # type: ignore[arg-type]
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
