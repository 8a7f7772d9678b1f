"""What chance explains: one criterion for findings, summaries, the bands in figures, and their captions."""

from __future__ import annotations

from typing import Any, TypeVar

from numpy.typing import NDArray
from xarray import DataArray

DEVIATIONS = 3
"""Standard deviations from the null expectation up to which chance explains a value."""
IN_WORDS = "three standard deviations"
"""The same in words."""

T = TypeVar("T", DataArray, NDArray[Any], float)


def chance_band(mean: T, sd: T) -> tuple[T, T]:
    """Return the lowest and the highest value that chance explains, from the null expectation and its deviation.

    Examples
    --------
    >>> chance_band(90.0, 2.0)
    (84.0, 96.0)
    """
    return mean - DEVIATIONS * sd, mean + DEVIATIONS * sd
