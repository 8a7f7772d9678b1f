"""The data set of a run, loaded by its settings, and a cache for runs that share one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from wtdiag.trainers import data
from wtdiag.trainers.config.settings import Settings

T = TypeVar("T")


def load_data(settings: Settings) -> data.Data:
    """Load the data set that the settings name.

    Raises
    ------
    InputError
        If it is unknown, missing or damaged.
    """
    return data.load(
        settings.data, data_dir=settings.data_dir, download=settings.download, image_size=settings.image_size
    )


class DataCache(Generic[T]):
    """A loader that loads each data set once for all runs that share it.

    Examples
    --------
    >>> load = DataCache(load_data)
    >>> load(Settings(rule="fa")) is load(Settings(rule="bp"))
    True
    """

    def __init__(self, load: Callable[[Settings], T]) -> None:
        self._load = load
        self._loaded: dict[tuple[object, ...], T] = {}

    def __call__(self, settings: Settings) -> T:
        """Return what the loader returns for the data set of the settings.

        Raises
        ------
        InputError
            As the loader does.
        """
        key = settings.data, settings.data_dir, settings.image_size
        if key not in self._loaded:
            self._loaded[key] = self._load(settings)
        return self._loaded[key]
