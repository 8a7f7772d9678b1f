"""A recorded run whose network can be rebuilt as it was at any recorded step."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError, first_line
from wtdiag.probes.records import schema
from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.config.settings import Settings, from_mapping, with_rule
from wtdiag.trainers.layers.convert import copied, set_rule, synapses
from wtdiag.trainers.layers.direct_points import points_of
from wtdiag.trainers.observe.attribution import LayerCost, attribution
from wtdiag.trainers.observe.inputs import Inputs, cross_entropy, moved
from wtdiag.trainers.observe.rates import Rates
from wtdiag.trainers.observe.tensors import from_numpy, is_recordable
from wtdiag.trainers.observe.tracer import Loss, Signals, error_signals
from wtdiag.trainers.rules import RULES

_T = TypeVar("_T")
_VERSIONED = {"wtdiag", "torch", "torchvision"}  # packages whose source or version an analysis keeps in mind


class ModelRun(schema.Run):
    """A run directory whose network can be rebuilt at every step; see `probes.records.schema.Run` for the rest."""

    @property
    def is_ours(self) -> bool:
        """Whether ``wtdiag train`` made the run, rather than the user's own training loop."""
        return self.config.get("network") is not None

    @property
    def is_foreign(self) -> bool:
        """Whether the network has layers of other code, which wtdiag cannot run."""
        return "foreign" in self.config

    def settings(self) -> Settings:
        """Return the settings of a run that ``wtdiag train`` made.

        Raises
        ------
        InputError
            If they are not valid.
        """
        source, settings = self.path / schema.CONFIG, self.config.get("settings")
        if not isinstance(settings, dict):
            raise InputError(f"{source}: 'settings' is {settings!r:.80}; expected a JSON object")
        return from_mapping(with_rule(settings, self.config.get("rule")), str(source))

    def model(self, step: int, model: nn.Module | None = None) -> nn.Module:
        """Return the network exactly as it was at ``step``.

        Parameters
        ----------
        step
            One of ``steps``.
        model
            A converted network into which the weights are loaded, for runs recorded from the user's own loop. Networks
            of ``wtdiag train`` are rebuilt from their settings.

        Raises
        ------
        InputError
            If there is no such step, the network learns by another rule, or the recorded weights do not fit it.
        """
        path = self._existing(step)
        if self.is_foreign:
            raise InputError(
                f"{self.path}: was recorded from layers of other code, which wtdiag cannot rebuild; its weights are in "
                "run.snapshot(step) and run.layer(name)"
            )
        if model is None:
            if not self.is_ours:
                raise InputError(
                    f"{self.path}: was recorded from a model of your own; give the converted network as model="
                )
            model = self.network()
        _check_network(model)
        state = {}
        with schema.open_snapshot(path) as file:
            arrays = {name: schema.read_layer(file, name) for name in schema.layer_names(file)}
            rest = schema.read_state(file)
        own = {key: entry for key, entry in model.state_dict().items() if is_recordable(entry)}
        layers = dict(synapses(model))
        _check_rules(model, self.config.get("rule"), arrays, str(path))
        for name, layer in arrays.items():
            for kind, array in (("weight", layer.forward), ("feedback", layer.feedback)):
                if name not in layers:
                    state[f"{name}.{kind}"] = layer.forward  # which the network lacks, and `_load` says it
                    continue
                synapse = layers[name]
                key = synapse.state_key("" if synapse is model else name, kind)
                if kind == "feedback" and array is None:
                    own.pop(key, None)  # under backprop it is a second name of W
                elif not synapse.is_computed(kind):  # else the tensors behind it are in the rest of the state
                    state[key] = layer.forward if array is None else array
        state |= rest
        return _load(model, own, state, str(path))

    def network(self) -> nn.Module:
        """Return a network like that of a run that ``wtdiag train`` made, with the weights that it draws.

        Raises
        ------
        InputError
            If the settings are not valid.
        """
        shape, classes = sizes(self.config["network"], str(self.path / schema.CONFIG))
        return build_network(self.settings(), shape=shape, classes=classes)

    def probe_batch(self) -> tuple[Inputs, Tensor] | None:
        """Return the fixed batch of the signal probes, inputs and targets, or None if no batch was recorded.

        The inputs are a tensor, or tensors by name.
        """
        path = self.path / schema.PROBE_BATCH
        if not path.exists():
            return None
        inputs, targets = schema.read_probe_batch(path)
        try:
            given: Inputs = (
                {name: from_numpy(*each) for name, each in inputs.items()}
                if isinstance(inputs, dict)
                else from_numpy(*inputs)
            )
            return given, from_numpy(*targets)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def is_probed(run: ModelRun, model: nn.Module | None = None) -> bool:
    """Return whether a run has what signals are measured on: a batch, snapshots and a network that is known."""
    batch = run.path / schema.PROBE_BATCH
    return batch.exists() and bool(run.steps.size) and (model is not None or run.is_ours)


def signals_of(
    run: ModelRun, model: nn.Module | None = None, loss: Loss | None = None
) -> Callable[[int], Signals] | None:
    """Return the signals of a run as a function of the step; None without a batch, snapshots or a known network.

    In addition to the signals of `trainers.observe.tracer.error_signals`, each layer has ``forward_lr`` and
    ``forward_decay``, and its law has the rates of the step that follows the snapshot, as far as the run records them
    (see `trainers.observe.rates.Rates`).

    Parameters
    ----------
    run
        The recorded run.
    model
        A converted network into which the weights are loaded, for runs from the user's own loop. The signals are
        computed on its device.
    loss
        Function of outputs and targets. By default it is cross-entropy with the run's label smoothing.

    Raises
    ------
    InputError
        If the targets of the batch are not class numbers and ``loss`` is not given. The function raises it if the
        weights of a step do not fit the network, or if the network or the loss cannot take the batch.
    """

    def at(network: nn.Module, x: Inputs, target: Tensor, loss: Loss, rates: Rates, step: int) -> Signals:
        signals = error_signals(network, x, target, loss=loss)
        layers = dict(synapses(network))
        for name, of_layer in signals.items():
            of_layer |= {"forward_lr": rates.forward_lr(step), "forward_decay": rates.forward_decay}
            if "law" in of_layer:
                of_layer["law"] = dataclasses.replace(of_layer["law"], **rates.feedback(step, layers[name].rule))
        return signals

    return _probed(run, model, loss, at)


def attribution_of(
    run: ModelRun, model: nn.Module | None = None, loss: Loss | None = None
) -> Callable[[int], dict[str, LayerCost]] | None:
    """Return the cost of each layer's feedback as a function of the step; None if `signals_of` returns None.

    It is that of `trainers.observe.attribution.attribution`, at the forward learning rate of the step that follows the
    snapshot.

    Parameters
    ----------
    run, model, loss
        The same as for `signals_of`.

    Raises
    ------
    InputError
        As `signals_of` does.
    """

    def at(network: nn.Module, x: Inputs, target: Tensor, loss: Loss, rates: Rates, step: int) -> dict[str, LayerCost]:
        return attribution(network, x, target, loss=loss, lr=rates.forward_lr(step))

    return _probed(run, model, loss, at)


def context_of(
    run: ModelRun, model: nn.Module | None = None, loss: Loss | None = None
) -> Callable[[int], str | None] | None:
    """Return what signals depend on besides the snapshot and the batch, by step; None if `signals_of` returns None.

    With a network, a rule or a loss from outside wtdiag it cannot be told, and the function returns None.

    Parameters
    ----------
    run, model, loss
        The same as for `signals_of`.
    """
    batch = run.probe_batch()
    if batch is None or not is_probed(run, model):
        return None
    if model is not None or loss is not None:
        return lambda step: None
    network = run.network()  # of which only the classes are looked at
    parts = [*network.modules(), *(layer.rule for _, layer in synapses(network))]
    if {type(part).__module__.partition(".")[0] for part in parts} - _VERSIONED:
        return lambda step: None
    rates = Rates(run, run.settings(), examples=len(batch[1]))
    recorded = json.dumps([run.config.get(part) for part in ("settings", "network", "rule")], sort_keys=True)
    return lambda step: recorded + rates.key(step)


def fixed_feedback(run: schema.Run) -> Callable[[str], bool]:
    """Return a function that tells whether a layer's feedback is fixed, by the rule that the run's config names."""

    def fixed(layer: str) -> bool:
        match _of_layer(run.config.get("rule"), layer):
            case {"name": str(name)} if name in RULES:
                return not RULES[name].learned
        return False

    return fixed


def _probed(
    run: ModelRun,
    model: nn.Module | None,
    loss: Loss | None,
    measure: Callable[[nn.Module, Inputs, Tensor, Loss, Rates, int], _T],
) -> Callable[[int], _T] | None:
    """Return a measure of the run's network on its probe batch as a function of the step."""
    batch = run.probe_batch()
    if batch is None or not is_probed(run, model):
        return None
    source = run.path / schema.PROBE_BATCH
    settings = run.settings() if run.is_ours else None
    if loss is None:
        if batch[1].is_floating_point() or batch[1].is_complex():
            raise InputError(
                f"loss: {source} has {str(batch[1].dtype)[6:]} targets, so the loss was not the cross-entropy of "
                "classes; give the loss of the training, for example loss=torch.nn.functional.mse_loss"
            )
        loss = partial(cross_entropy, label_smoothing=settings.label_smoothing if settings else 0.0)
    rates = Rates(run, settings, examples=len(batch[1]))
    network = _copied(model) if model is not None else run.model(int(run.steps[0]))
    device = next(network.parameters(), batch[1]).device
    x, target = moved(batch[0], device), batch[1].to(device)

    def at(step: int) -> _T:
        now = run.model(step, network)
        if (rule := rates.rule(step)) is not None:
            set_rule(now, rule)
        try:
            return measure(now, x, target, loss, rates, step)
        except InputError:
            raise
        except Exception as error:  # the model and the loss are the user's code, which may raise anything
            raise InputError(
                f"{source}: the network cannot take the batch, or the loss the network's outputs ({first_line(error)})"
            ) from error

    return at


def open_run(path: str | os.PathLike[str] | schema.Run) -> ModelRun:
    """Open a run directory; a run that is open already is returned as it is.

    Raises
    ------
    InputError
        If ``path`` is not a run directory.
    """
    run = schema.open_run(path)
    return run if isinstance(run, ModelRun) else ModelRun(run.path, run.config)


def sizes(network: Any, source: str) -> tuple[tuple[int, int, int], int]:
    """Return the shape of the inputs and the number of classes from a config."""
    match network:
        case {"shape": [int(c), int(h), int(w)], "classes": int(classes)} if min(c, h, w, classes) > 0:
            return (c, h, w), classes
    raise InputError(
        f"{source}: 'network' is {network!r:.80}; expected a shape of three positive numbers and the number of classes"
    )


def _of_layer(recorded: Any, layer: str) -> Any:
    """Return the part of a config's ``rule`` entry that applies to one layer."""
    match recorded:
        case {"name": "mixed", "layers": {**layers}}:
            return layers.get(layer)
        case {"name": "mixed"}:
            return None
    return recorded


def _check_rules(model: nn.Module, recorded: Any, arrays: dict[str, schema.LayerArrays], source: str) -> None:
    """Require that each layer has the rule of the run, as far as the config's ``recorded`` or the arrays tell it."""
    projecting = next((point.path.rule for _, point in points_of(model)), None)
    for name, layer in synapses(model):
        entry, rule = _of_layer(recorded, name), layer.rule
        learns = (projecting or rule).name
        if isinstance(entry, dict) and isinstance(learnt := entry.get("name"), str) and learnt != learns:
            raise InputError(
                f"{source}: layer {name!r} learned by {learnt!r:.40} in the run, but learns by {learns!r} in the "
                "network; expected a network converted by the rule of the run"
            )
        if name in arrays and (arrays[name].feedback is None) != rule.transports:
            holds, has = ("none", "its own") if arrays[name].feedback is None else ("its own", "none")
            raise InputError(
                f"{source}: layer {name!r}: feedback weights: the snapshot holds {holds}, {rule.name!r} has {has}; "
                "expected a network converted by the rule of the run"
            )


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
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if is_recordable(buffer) and any(
                size > 1 and not stride for size, stride in zip(buffer.shape, buffer.stride(), strict=True)
            ):
                module._buffers[name] = buffer.contiguous()  # an expanded tensor cannot be written to
    try:
        model.load_state_dict(tensors, strict=False)  # entries that are not recorded stay as they are
    except RuntimeError as error:
        raise InputError(f"{source}: does not fit the network: {first_line(error)}") from error
    return model


def _check_network(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"model: expected a converted network, got {type(model).__name__}")


def _copied(model: nn.Module) -> nn.Module:
    """Return a copy of the user's network, into which weights can be loaded."""
    _check_network(model)
    try:
        return copied(model)
    except Exception as error:  # whatever the attributes of the user's modules raise
        raise InputError(f"model: {type(model).__name__} cannot be copied ({first_line(error)})") from error
