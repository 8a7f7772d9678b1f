"""Other architectures: how they are named, whether settings can go to them, whether they can be had."""

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
"""Settings that no architecture may change: the method, what seeds pair, and that it is tested on the test set."""
_LOCATION = settings_with_role("location")


def parse_architectures(words: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read architectures, each NAME=VALUE[,NAME=VALUE...], and label each by what it sets.

    Raises
    ------
    InputError
        If a word has another form, or two are the same.

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
            raise InputError(f"to: {label!r} is there twice")
        architectures[label] = settings
    return architectures


def check_architectures(
    architectures: Mapping[str, Mapping[str, Any]],
    methods: Mapping[str, Mapping[str, Any]],
    space: Mapping[str, Iterable[str]],
) -> str:
    """Require that a sweep's settings can go to architectures; return the label of the one it was made on.

    Parameters
    ----------
    architectures
        By label, the settings that make it another.
    methods, space
        By method, its settings, and the names of the parameters that were searched.

    Raises
    ------
    InputError
        If one changes nothing, is the source, or sets what is no setting, was searched, or is not an architecture's.

    Examples
    --------
    >>> methods = {"bp": {"model": "mlp", "data": "digits", "depth": 4}}
    >>> check_architectures({"deep": {"depth": 8}}, methods, {"bp": ["lr"]})
    'mlp, depth 4, digits'
    """
    searched = {name for names in space.values() for name in names}
    free = [field.name for field in dataclasses.fields(Settings) if field.name not in FIXED]
    for label, more in architectures.items():
        if not more:
            raise InputError(f"to: {label}: expected at least one setting that differs from the sweep's")
        for name, value in more.items():
            if name in searched:
                raise InputError(
                    f"to: {label}: {name}={value!r} cannot be used, for {name} was searched and goes unchanged"
                )
            if name in FIXED:
                raise InputError(f"to: {label}: {name}={value!r} cannot be used; it is no part of an architecture")
            check_one_of(f"to: {label}: setting", name, free)
    shown = {"model", "data", *(name for more in architectures.values() for name in more)}.difference(_LOCATION)
    settings = {name: getattr(Settings, name) for name in shown} | dict(next(iter(methods.values())))
    source = describe({name: settings[name] for name in shown})
    if source in architectures:
        raise InputError(f"to: {source!r} is the architecture that the sweep was made on; it is there in any case")
    return source


def require_trainable(wanted: Mapping[str, Settings]) -> None:
    """Require that networks can be built and trained as settings want it.

    Parameters
    ----------
    wanted
        Settings by what they are for, which is named in the error.

    Raises
    ------
    InputError
        For the first that cannot: its data are missing, its model cannot take them, or has no such depth.

    Examples
    --------
    >>> require_trainable({"deeper": Settings(model="resnet20", depth=8)})
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: to: deeper: depth: 8 cannot be used, 'resnet20' fixes it; it is free in mlp, conv
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
