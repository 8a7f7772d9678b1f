"""The description of a measure, which is written into the attributes of its variable and read from there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wtdiag.probes.errors import InputError, check_one_of

SUBJECTS = ("forward", "feedback", "signal")
SCALES = ("linear", "log")

_TEXTS = ("units", "long_name", "equation", "reference", "label", "predicts")
_NUMBERS = ("neutral", "limit")
_BOUNDS = ("lower_bound", "upper_bound")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """The description of a measure.

    Attributes
    ----------
    name, units, long_name, equation, reference : str
        For tables and axes; units as in netCDF, "1" for a pure number.
    subject : {"forward", "feedback", "signal"}
        What it is about: W; B and the error that B sends on, so that it is meaningless in a layer that sends none; or
        the signals that reach the layer.
    bounds : (float, float)
        The lowest and the highest possible value.
    neutral : float, optional
        The value between two opposite deviations: 90° between aligned and opposed, a gain of 1 between too small and
        too large.
    limit : float, optional
        The value above which something is wrong.
    scale : {"linear", "log"}
        Whether differences or ratios of its values are meaningful.
    homogeneity : int
        Its degree: multiplying all weights and signals of a network by c > 0 multiplies it by c to this power.
    entrywise : bool
        Whether it looks at single entries or units, so that a rotation of the layer's units changes it.
    predicts : str
        The measure whose value at the feedback's fixed point it is, if it is that.
    label : str
        Its name in figures and lists; by default the name with spaces.

    Raises
    ------
    InputError
        If the subject or the scale is unknown, or no value lies between the bounds.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["weight_angle"].bounds, PROBES["weight_angle"].neutral, PROBES["step_size_number"].limit
    ((0, 180), 90, 1)
    """

    name: str
    units: str
    long_name: str
    equation: str
    reference: str
    subject: str
    bounds: tuple[float, float] = (0.0, math.inf)
    neutral: float | None = None
    limit: float | None = None
    scale: str = "linear"
    homogeneity: int = 0
    entrywise: bool = False
    predicts: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        check_one_of(f"{self.name}: subject", self.subject, SUBJECTS)
        check_one_of(f"{self.name}: scale", self.scale, SCALES)
        if not self.bounds[0] < self.bounds[1]:
            raise InputError(f"{self.name}: bounds: {self.bounds} has no values between; expected (low, high)")
        if not self.label:
            object.__setattr__(self, "label", self.name.replace("_", " "))

    @property
    def attrs(self) -> dict[str, Any]:
        """Its attributes in an analysis; "bounds" is not used there, as it has another meaning in netCDF files."""
        texts = {name: text for name in _TEXTS if (text := getattr(self, name))}
        numbers = {name: float(number) for name in _NUMBERS if (number := getattr(self, name)) is not None}
        bounds = {name: float(bound) for name, bound in zip(_BOUNDS, self.bounds, strict=True)}
        rest = {"subject": self.subject, "scale": self.scale, "homogeneity": self.homogeneity}
        return texts | rest | bounds | numbers


def from_attrs(name: str, attrs: Mapping[str, Any], known: Measure | None = None) -> Measure:
    """Return the description in the attributes of a variable, completed from its definition if that is known.

    Attributes with invalid values are ignored. The subject of an unknown variable is taken to be the feedback.

    Examples
    --------
    >>> from_attrs("norm_ratio", {"neutral": 1.0, "scale": "cubic"}).neutral
    1.0
    """
    stated: dict[str, Any] = {}
    for key, value in attrs.items():
        match key, value:
            case ("subject", str()) if value in SUBJECTS:
                stated[key] = value
            case ("scale", str()) if value in SCALES:
                stated[key] = value
            case (_, str()) if key in _TEXTS and value:
                stated[key] = value
            case (_, float() | int() | np.number()) if key in _NUMBERS and math.isfinite(value):
                stated[key] = float(value)
            case ("homogeneity", int() | np.integer()):
                stated[key] = int(value)
    match [attrs.get(name) for name in _BOUNDS]:
        case [float() | int() | np.number() as low, float() | int() | np.number() as high] if low < high:
            stated["bounds"] = float(low), float(high)
    base: dict[str, Any] = {"units": "1", "long_name": name, "equation": "", "reference": "", "subject": "feedback"}
    base |= {"bounds": (-math.inf, math.inf)}
    if known is not None:
        base = {field.name: getattr(known, field.name) for field in dataclasses.fields(Measure)}
    return Measure(**base | stated | {"name": name})
