"""Robustness of rules: the share of a sweep's configurations that work, and their accuracy on other architectures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from wtdiag.diagnostics.comparison import intervals
from wtdiag.probes.errors import InputError

COUNTED = ("finished", "diverged", "pruned")
"""States of the configurations that count. Those interrupted, pending, running or absent were not tried to the end, and
a failure says something about the machine and not about the rule."""


def reached(sweep: xr.Dataset, levels: ArrayLike | None = None) -> xr.Dataset:
    r"""Return the share of configurations that reach a share of the reference's best validation accuracy.

    .. math:: \text{share}(r, x) = \frac{1}{n_r} \sum_t [t \text{ finished}] \, [a_{rt} \ge x \max_s a_{\text{ref}, s}]

    A configuration that was pruned or diverged does not reach any level, because it gives no usable network; it was
    pruned because theory predicted that it would not learn. A configuration that failed is left out.

    Parameters
    ----------
    sweep
        Results that `diagnostics.comparison.results.read_results` returns, of kind "sweep".
    levels
        The levels x, from 0 to 1; default: every percent.

    Returns
    -------
    Dataset
        ``share``, and its exact 95 % interval from ``low`` to ``high``, over (rule, level); ``count`` over
        (rule, status), for the states in `COUNTED`, whose sum is n, and for "failed"; ``best``, the reference's best
        accuracy. Values are NaN for a rule without configurations, and for all rules if no configuration of the
        reference finished.

    Raises
    ------
    InputError
        If a level is not between 0 and 1.

    Examples
    --------
    >>> accuracy, status = [[0.9, 0.8], [0.89, np.nan]], [["finished"] * 2, ["finished", "pruned"]]
    >>> sweep = xr.Dataset(
    ...     {"validation_accuracy": (("rule", "trial"), accuracy), "status": (("rule", "trial"), status)},
    ...     {"rule": ["bp", "ia"], "trial": [0, 1]}, {"reference": "bp"})
    >>> reached(sweep, [0.95]).share.sel(rule="ia").values
    array([0.5])
    """
    marks = np.linspace(0, 1, 101) if levels is None else np.asarray(levels, dtype=float)
    if marks.ndim != 1 or not ((marks >= 0) & (marks <= 1)).all():
        raise InputError(f"levels: expected shares from 0 to 1, got {levels!r:.60}")
    best, rules = best_accuracy(sweep), sweep["rule"].values
    share, low, high = (np.full((len(rules), len(marks)), np.nan) for _ in range(3))
    for row, rule in enumerate(rules):
        accuracy = accuracies(sweep, rule)
        for column, x in enumerate(marks if np.isfinite(best) and len(accuracy) else []):
            hits = int((accuracy >= x * best).sum())
            share[row, column] = hits / len(accuracy)
            low[row, column], high[row, column] = intervals.of_share(hits, len(accuracy))
    status, states = sweep["status"].transpose("rule", "trial").values, (*COUNTED, "failed")
    counts = np.stack([(status == each).sum(axis=1) for each in states], axis=1)
    over = "rule", "level"
    return xr.Dataset(
        {
            "share": (over, share, {"units": "1", "long_name": "share of configurations that reach the level"}),
            "low": (over, low, {"units": "1", "long_name": "least share, 95 %"}),
            "high": (over, high, {"units": "1", "long_name": "greatest share, 95 %"}),
            "count": (("rule", "status"), counts, {"units": "1", "long_name": "configurations"}),
            "best": ((), best, {"units": "1", "long_name": "best validation accuracy of the reference"}),
        },
        {"rule": rules, "level": marks, "status": list(states)},
    )


def best_accuracy(sweep: xr.Dataset) -> float:
    """Return the reference's best validation accuracy, NaN if none of its configurations finished."""
    reference = sweep.attrs["reference"]
    own = accuracies(sweep, reference) if reference in sweep["rule"].values else np.array([])
    best = own.max(initial=-np.inf)
    return float(best) if np.isfinite(best) else np.nan


def accuracies(sweep: xr.Dataset, rule: str) -> NDArray[np.float64]:
    """Return the validation accuracy of each configuration of a rule that counts; −∞ if it did not finish."""
    trials = sweep.sel(rule=rule)
    accuracy, status = trials["validation_accuracy"].values, trials["status"].values
    finished = (status == "finished") & np.isfinite(accuracy)
    counted: NDArray[np.float64] = np.where(finished, accuracy, -np.inf)[np.isin(status, COUNTED)]
    return counted


def relative(transfer: xr.Dataset) -> xr.Dataset:
    r"""Return the test accuracy on each architecture relative to that of the reference.

    .. math:: \rho_{r c a s} = a_{r c a s} / a_{\text{ref}, 0, a s}

    where configuration 0 is the reference's best on the source. A run that diverged answers at chance. A run that
    failed or has not ended has no number, and its seed is left out of the mean of its rule on that architecture, so
    that every seed averages the same configurations. Configurations differ more than seeds do, so the interval
    resamples both.

    Parameters
    ----------
    transfer
        Results that `diagnostics.comparison.results.read_results` returns, of kind "transfer".

    Returns
    -------
    Dataset
        ``relative``, over (rule, configuration, architecture, seed). Over (rule, architecture): ``mean`` over
        configurations and seeds, its 95 % interval from ``low`` to ``high``, which crosses configurations with ``n``
        seeds (`intervals.of_crossed_mean`), and the number ``left_out`` of seeds.

    Examples
    --------
    >>> dims = "rule", "configuration", "architecture", "seed"
    >>> accuracy = np.array([0.8, 0.4]).reshape(2, 1, 1, 1)
    >>> status = np.full(accuracy.shape, "finished")
    >>> transfer = xr.Dataset(
    ...     {"test_accuracy": (dims, accuracy), "status": (dims, status)},
    ...     {"rule": ["bp", "ia"], "configuration": [0], "architecture": ["mlp4"], "seed": [0]},
    ...     {"reference": "bp"})
    >>> relative(transfer)["mean"].sel(rule="ia", architecture="mlp4").item()
    0.5
    """
    over = "rule", "configuration", "architecture", "seed"
    accuracy, status = (transfer[name].transpose(*over) for name in ("test_accuracy", "status"))
    usable = accuracy.where(status.isin(["finished", "diverged"]))
    reference = transfer.attrs["reference"]
    if reference in transfer["rule"].values and 0 in transfer["configuration"].values:
        held = usable.sel(rule=reference, configuration=0, drop=True)
        ratio = usable / held.where(held > 0)
    else:
        ratio = xr.full_like(usable, np.nan, dtype=float)
    values, planned = ratio.transpose(*over).values, (status != "absent").values
    shape = transfer.sizes["rule"], transfer.sizes["architecture"]
    mean, low, high = (np.full(shape, np.nan) for _ in range(3))
    seeds, left_out = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
    for at in np.ndindex(*shape):
        there = planned[at[0], :, at[1]]
        table = values[at[0], there.any(axis=1), at[1]]
        whole = table[:, np.isfinite(table).all(axis=0)] if len(table) else np.empty((0, 0))
        seeds[at], left_out[at] = whole.shape[1], there.any(axis=0).sum() - whole.shape[1]
        if whole.size:
            mean[at] = whole.mean()
            low[at], high[at] = intervals.of_crossed_mean(whole)
    rows, of = ("rule", "architecture"), {"units": "1"}
    return xr.Dataset(
        {
            "relative": (over, values, of | {"long_name": "test accuracy relative to the reference"}),
            "mean": (rows, mean, of | {"long_name": "mean test accuracy relative to the reference"}),
            "low": (rows, low, of | {"long_name": "least relative test accuracy, 95 %"}),
            "high": (rows, high, of | {"long_name": "greatest relative test accuracy, 95 %"}),
            "n": (rows, seeds, of | {"long_name": "seeds"}),
            "left_out": (rows, left_out, of | {"long_name": "seeds with a run that has no number"}),
        },
        {name: transfer[name].values for name in over},
    )
