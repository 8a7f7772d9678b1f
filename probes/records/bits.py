"""Yes or no for each of many examples, as a short text in a JSON file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from wtdiag.probes.errors import InputError


def to_text(flags: ArrayLike) -> dict[str, Any]:
    """Return flags as their number and their bits in hexadecimal, the first in the highest bit.

    Examples
    --------
    >>> to_text([True, False, True])
    {'examples': 3, 'right': 'a0'}
    """
    values = np.asarray(flags, dtype=bool)
    return {"examples": len(values), "right": np.packbits(values).tobytes().hex()}


def from_text(content: Any, source: str) -> bytes:
    """Return what `to_text` made as bytes, 0 or 1 for each flag; ``source`` is the file that it is from.

    Raises
    ------
    InputError
        If it has another form.

    Examples
    --------
    >>> list(from_text({"examples": 3, "right": "a0"}, "config.json"))
    [1, 0, 1]
    """
    match content:
        case {"examples": int(count), "right": str(text)} if 0 <= count <= 4 * len(text) < count + 8:
            try:
                return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count].tobytes()
            except ValueError:
                pass
    raise InputError(f"{source}: 'tested' does not tell which test examples were right")
