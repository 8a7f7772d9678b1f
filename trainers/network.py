"""From settings to a converted network, and from a recorded run back to the network of any step."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F

from probes import schema
from probes.errors import InputError
from trainers import models
from trainers.convert import transport_free
from trainers.settings import Settings, from_mapping
from trainers.signals import Signals, error_signals

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
"""What weights are kept in; "bfloat16" computes in it by autocast over float32 weights."""


def build_network(settings: Settings, *, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the converted network of a run, with the initial weights of its seed.

    W is drawn before B, so runs of one seed start from the same W whatever their rule. The global random state is
    left as it was.

    Raises
    ------
    InputError
        If the model, its size or the rule cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = models.build(
            settings.model,
            classes=classes,
            shape=shape,
            depth=settings.depth,
            width=settings.width,
            batch_norm=settings.batch_norm,
        )
        model = model.to(DTYPES[settings.precision])
        sample = torch.zeros(2, *shape, dtype=DTYPES[settings.precision])
        return transport_free(model, settings.rule_at(0.0, 0.0), sample=sample, classes=classes)


class Run(schema.Run):
    """A run directory whose networks can be rebuilt; see `probes.schema.Run` for the rest."""

    def model(self, step: int, model: nn.Module | None = None) -> nn.Module:
        """Return the network exactly as it was at ``step``.

        Parameters
        ----------
        step
            One of ``steps``.
        model
            A converted network to load the weights into, for runs recorded from a loop of one's own; runs of
            ``wtdiag train`` are rebuilt from their settings.

        Raises
        ------
        InputError
            If there is no such step, or the recorded weights do not fit the network.
        """
        if model is None:
            network = self.config.get("network")
            if not network:
                raise InputError(
                    f"{self.path}: recorded from a model that is not one of wtdiag's; give model= the converted network"
                )
            settings = from_mapping(self.config["settings"], str(self.path / schema.CONFIG))
            model = build_network(settings, shape=tuple(network["shape"]), classes=int(network["classes"]))
        state = {}
        with schema.open_snapshot(self._existing(step)) as file:
            arrays = {name: schema.read_layer(file, name) for name in schema.layer_names(file)}
            rest = schema.read_state(file)
        own = model.state_dict()
        for name, layer in arrays.items():
            prefix = "" if name == "model" and "weight" in own else f"{name}."
            state[prefix + "weight"] = layer.forward
            state[prefix + "feedback"] = layer.forward if layer.feedback is None else layer.feedback
        state |= rest
        return _load(model, own, state, f"{schema.snapshot_path(self.path, step)}")

    def probe_batch(self) -> tuple[Tensor, Tensor] | None:
        """Return the fixed batch of the signal probes, inputs and targets, or None if none was recorded."""
        path = self.path / schema.PROBE_BATCH
        if not path.exists():
            return None
        try:
            with xr.open_dataset(path, engine="h5netcdf") as batch:
                return torch.from_numpy(batch.inputs.values), torch.from_numpy(batch.targets.values)
        except (OSError, AttributeError, ValueError, TypeError) as error:
            raise InputError(f"{path}: cannot be read as a probe batch ({str(error).splitlines()[0]})") from None


def signals_of(run: Run, model: nn.Module | None = None) -> Callable[[int], Signals] | None:
    """Return the error signals of a run as a function of the step, or None if it has no batch or no known network.

    Parameters
    ----------
    run
        The recorded run.
    model
        A converted network to load weights into, for runs from a loop of one's own.
    """
    batch = run.probe_batch()
    if batch is None or (model is None and not run.config.get("network")):
        return None
    network = copy.deepcopy(model) if model is not None else run.model(int(run.steps[0]))
    smoothing = run.config.get("settings", {}).get("label_smoothing", 0.0)

    def at(step: int) -> Signals:
        loss = partial(F.cross_entropy, label_smoothing=smoothing)
        return error_signals(run.model(step, network), *batch, loss=loss)

    return at


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run directory.

    Raises
    ------
    InputError
        If it is not one.
    """
    run = schema.open_run(path)
    return Run(run.path, run.config)


def _load(model: nn.Module, own: dict[str, Tensor], state: dict[str, np.ndarray[Any, Any]], source: str) -> nn.Module:
    missing = sorted(own.keys() - state.keys())
    foreign = sorted(state.keys() - own.keys())
    if missing or foreign:
        what = f"lacks {missing[0]!r}" if missing else f"holds {foreign[0]!r}, which the network lacks"
        raise InputError(f"{source}: does not fit the network: {what}")
    tensors = {name: torch.from_numpy(np.asarray(state[name], order="C")).to(own[name].dtype) for name in own}
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{source}: does not fit the network: {name!r} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            )
    model.load_state_dict(tensors)
    return model
