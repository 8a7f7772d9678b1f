"""A run's evaluations: which columns of its metrics hold them, on the test set or on a held-out part, and classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

SETS = ("test", "validation")
"""The sets on which a run may be evaluated; that of the test set counts where both were logged."""


def evaluated_on(metrics: pd.DataFrame, config: Mapping[str, Any]) -> str:
    """Return the set of a run's evaluations, from the columns of its metrics, or else from its settings.

    Examples
    --------
    >>> evaluated_on(pd.DataFrame({"validation_accuracy": [0.5]}), {})
    'validation'
    >>> evaluated_on(pd.DataFrame(), {"settings": {"holdout": 0.2}}), evaluated_on(pd.DataFrame(), {})
    ('validation', 'test')
    """
    for name in SETS:
        if {f"{name}_accuracy", f"{name}_loss"} & set(metrics):
            return name
    settings = config.get("settings")
    return "validation" if isinstance(settings, dict) and settings.get("holdout") else "test"


def numbers(metrics: pd.DataFrame, name: str) -> pd.Series[float]:
    """Return the numbers of a column of the metrics by step, in their order; empty if it was not logged.

    Examples
    --------
    >>> numbers(pd.DataFrame({"step": [2, 1], "loss": ["much", 3]}), "loss").to_dict()
    {1.0: 3.0, 2.0: nan}
    """
    if name not in metrics or "step" not in metrics:
        return pd.Series(dtype=float)
    table = metrics[["step", name]].apply(pd.to_numeric, errors="coerce").astype(float)
    table = table[np.isfinite(table["step"])]
    return table.set_index("step")[name].sort_index(kind="stable")


def column(metrics: pd.DataFrame, name: str) -> pd.Series[float]:
    """Return the finite numbers of a column of the metrics by step, in their order; empty if it was not logged.

    Where a step was logged more than once, the last line counts.

    Examples
    --------
    >>> column(pd.DataFrame({"step": [1, 2, 2], "loss": ["much", 3, 2]}), "loss").to_dict()
    {2.0: 2.0}
    """
    logged = numbers(metrics, name)
    logged = logged[np.isfinite(logged)]
    return logged[~logged.index.duplicated(keep="last")]


def evaluations(metrics: pd.DataFrame, config: Mapping[str, Any], name: str) -> pd.Series[float]:
    """Return the "accuracy" or the "loss" of a run's evaluations by step."""
    return column(metrics, f"{evaluated_on(metrics, config)}_{name}")


def classes_of(config: Mapping[str, Any]) -> int | None:
    """Return the number of classes that a run tells apart, None if its config does not say.

    Examples
    --------
    >>> classes_of({"network": {"classes": 10}}), classes_of({"network": None})
    (10, None)
    """
    network = config.get("network")
    classes = network.get("classes") if isinstance(network, dict) else None
    return classes if isinstance(classes, int) and not isinstance(classes, bool) and classes > 1 else None
