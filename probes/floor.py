"""The floor below which two error signals have no angle, because rounding has destroyed their directions."""

from __future__ import annotations

import math

_APART = 1e12  # norms that differ by a larger factor cannot be compared


def comparable(first_norm: float, second_norm: float, *, size: int, tiny: float) -> bool:
    """Return whether two errors with ``size`` entries have an angle.

    They do not if the root mean square of one is below ``tiny``, the smallest normal number of their dtype; if their
    norms are a factor of 10¹² apart; or if one is zero or not finite.

    Examples
    --------
    >>> comparable(1.0, 1e-3, size=4, tiny=1e-38), comparable(1.0, 1e-13, size=4, tiny=1e-38)
    (True, False)
    """
    least, most = min(first_norm, second_norm), max(first_norm, second_norm)
    return 0 < least >= tiny * math.sqrt(size) and most <= _APART * least and math.isfinite(most)
