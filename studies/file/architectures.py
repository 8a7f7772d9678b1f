"""Architectures that settings are transferred to: their labels, and the checks that they can be used and trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.config import settings_with_role
from wtdiag.studies.file.describe import describe
from wtdiag.trainers import data
from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.config.datasets import DataCache, load_data
from wtdiag.trainers.config.settings import Settings

FIXED = settings_with_role("method", "protocol")
"""Settings that no architecture may change: the method, and the protocol of seeds and test set."""
_LOCATION = settings_with_role("location")


def parse_architectures(words: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read architectures, each NAME=VALUE[,NAME=VALUE...], and label each by its settings.

    Raises
    ------
    InputError
        If a word has another form, or two architectures are the same.

    Examples
    --------
    >>> parse_architectures(["depth=8", "data=glyphs,model=conv"])
    {'depth 8': {'depth': 8}, 'conv, glyphs': {'data': 'glyphs', 'model': 'conv'}}
    """
    names = [field.name for field in dataclasses.fields(Settings)]
    architectures: dict[str, dict[str, Any]] = {}
    for word in words:
        settings: dict[str, Any] = {}
        for part in word.split(","):
            name, equals, text = part.partition("=")
            if not (name and equals and text) or name in settings:
                raise InputError(f"to: expected NAME=VALUE[,NAME=VALUE...] with different names, got {word!r}")
            check_one_of("to: setting", name, names)
            settings[name] = _value(text)
        label = describe({name: value for name, value in settings.items() if name not in _LOCATION})
        if label in architectures:
            raise InputError(f"to: {label!r} is given twice")
        architectures[label] = settings
    return architectures


def check_architectures(
    architectures: Mapping[str, Mapping[str, Any]],
    methods: Mapping[str, Mapping[str, Any]],
    space: Mapping[str, Iterable[str]],
) -> str:
    """Check that the settings of a sweep can be transferred; return the label of the architecture that it searched on.

    Parameters
    ----------
    architectures
        By label, the settings in which it differs from that of the sweep.
    methods, space
        The settings of each method, and the names of the parameters that were searched for it.

    Raises
    ------
    InputError
        If an architecture changes nothing or is that of the sweep, or if a name in it is not a setting, was searched,
        or does not belong to an architecture.

    Examples
    --------
    >>> methods = {"bp": {"model": "mlp", "data": "digits", "depth": 4}}
    >>> check_architectures({"deep": {"depth": 8}}, methods, {"bp": ["lr"]})
    'mlp, depth 4, digits'
    """
    searched = {name for names in space.values() for name in names}
    free = [field.name for field in dataclasses.fields(Settings) if field.name not in FIXED]
    for label, changes in architectures.items():
        if not changes:
            raise InputError(f"to: {label}: expected at least one setting that differs from the sweep's")
        for name, value in changes.items():
            if name in searched:
                raise InputError(
                    f"to: {label}: {name}={value!r} cannot be used, because {name} was searched and is transferred"
                )
            if name in FIXED:
                raise InputError(f"to: {label}: {name}={value!r} cannot be used, as it is not part of an architecture")
            check_one_of(f"to: {label}: setting", name, free)
    shown = {"model", "data", *(name for changes in architectures.values() for name in changes)}.difference(_LOCATION)
    settings = {name: getattr(Settings, name) for name in shown} | dict(next(iter(methods.values())))
    source = describe({name: settings[name] for name in shown})
    if source in architectures:
        raise InputError(f"to: {source!r} is the architecture of the sweep itself, which is always included")
    return source


def require_trainable(wanted: Mapping[str, Settings]) -> None:
    """Check that networks can be built and trained with some settings.

    Parameters
    ----------
    wanted
        The settings, by the label that names them in the error.

    Raises
    ------
    InputError
        For the first that cannot, because its data are missing, or its model does not suit the data or the depth.

    Examples
    --------
    >>> require_trainable({"deeper": Settings(model="resnet20", depth=8)})
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: to: deeper: depth: 8 cannot be used, because 'resnet20' fixes it; ...
    """
    load = DataCache(load_data)
    for label, settings in wanted.items():
        try:
            dataset = load(settings)
            data.batch_count(dataset.train, settings.batch_size)
            build_network(settings, shape=dataset.shape, classes=dataset.classes)
        except InputError as error:
            raise InputError(f"to: {label}: {error}") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
