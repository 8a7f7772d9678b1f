"""95 % intervals of a mean, a share and a difference of shares; the same numbers give the same interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, bootstrap

Interval = tuple[float, float]

RESAMPLINGS = 9999


def of_mean(values: ArrayLike) -> Interval:
    r"""Bootstrap interval of the mean of ``values``, the differences of pairs for instance.

    The 2.5 % and 97.5 % percentiles of :math:`\frac 1 n \sum_i v_{k_i}`, the :math:`k_i` drawn with replacement, over
    9999 resamplings. Pairs are subtracted first and then resampled, so what both of a pair share falls out. The order
    of the values does not matter. From few values the interval is too narrow: that of 5, 10 or 20 normal ones holds
    the true mean 85, 90 or 93 % of the time, by simulation.

    Parameters
    ----------
    values
        One number for each seed or pair, all finite.

    Returns
    -------
    low, high
        In the units of ``values``; NaN for fewer than two.

    References
    ----------
    Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1).

    Examples
    --------
    >>> of_mean([0.5, 0.5, 0.5])
    (0.5, 0.5)
    >>> of_mean([0.5])
    (nan, nan)
    """
    numbers = np.sort(np.asarray(values, dtype=float))  # sorted: the order of seeds carries nothing
    if len(numbers) < 2:
        return math.nan, math.nan
    return _bootstrap((numbers,), np.mean)


def of_crossed_mean(values: ArrayLike, less: ArrayLike | None = None) -> Interval:
    r"""Bootstrap interval of the mean of a table whose rows and columns are both samples, or of a difference of two.

    The 2.5 % and 97.5 % percentiles of :math:`\frac 1 {mn} \sum_{ij} v_{k_i l_j}`, rows :math:`k_i` and columns
    :math:`l_j` drawn with replacement and independently, over 9999 resamplings. Of two tables the columns are pairs,
    and drawn alike; rows are drawn for each table by itself. A single row is not resampled. From few rows that differ
    much the interval is too narrow: that of 3, 5 or 10 normal ones holds the true mean 74, 83 or 89 % of the time, by
    simulation.

    Parameters
    ----------
    values
        A row for each configuration and a column for each seed, all finite.
    less
        What is subtracted: any number of rows, the same columns.

    Returns
    -------
    low, high
        In the units of ``values``; NaN for fewer than two columns or no row.

    References
    ----------
    Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2).

    Examples
    --------
    >>> of_crossed_mean([[0.5, 0.5], [0.5, 0.5]], less=[[0.25, 0.25]])
    (0.25, 0.25)
    """
    tables = [np.asarray(table, dtype=float) for table in (values, less) if table is not None]
    if any(len(table) < 1 or table.shape[1] < 2 for table in tables):
        return math.nan, math.nan
    rng, columns = np.random.default_rng(0), tables[0].shape[1]
    # sorted: the order of configurations and seeds carries nothing
    order = np.argsort(sum(sign * table.mean(axis=0) for sign, table in zip((1, -1), tables, strict=False)))
    drawn_columns = rng.multinomial(columns, np.full(columns, 1 / columns), RESAMPLINGS) / columns
    found = np.zeros(RESAMPLINGS)
    for sign, table in zip((1, -1), tables, strict=False):
        rows = len(table)
        drawn_rows = rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLINGS) / rows
        sorted_table = table[np.argsort(table.mean(axis=1))][:, order]
        found += sign * ((drawn_rows @ sorted_table) * drawn_columns).sum(axis=1)
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


@cache
def of_share(count: int, of: int) -> Interval:
    r"""Exact interval of a share, ``count`` of ``of``.

    All shares :math:`p` with :math:`P(X \ge k \mid p) \ge 0.025` and :math:`P(X \le k \mid p) \ge 0.025`, :math:`X`
    binomial: it holds the true share at least 95 % of the time.

    Returns
    -------
    low, high
        From 0 to 1; NaN of nothing.

    References
    ----------
    Clopper and Pearson 1934, "The use of confidence or fiducial limits", Biometrika 26(4).

    Examples
    --------
    >>> [round(bound, 3) for bound in of_share(0, 10)]
    [0.0, 0.308]
    """
    if not of:
        return math.nan, math.nan
    found = binomtest(count, of).proportion_ci(confidence_level=0.95, method="exact")
    return float(found.low), float(found.high)


def of_share_difference(first: ArrayLike, second: ArrayLike) -> Interval:
    r"""Bootstrap interval of the share of trues in ``first`` less that in ``second``.

    As `of_mean`, each of the two resampled by itself: trials of two searches are no pairs.

    Parameters
    ----------
    first, second
        One truth value for each trial.

    Returns
    -------
    low, high
        From −1 to 1; NaN where one has fewer than two.

    References
    ----------
    Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1).

    Examples
    --------
    >>> of_share_difference([True, True, True], [False, False])
    (1.0, 1.0)
    """
    samples = tuple(np.sort(np.asarray(each, dtype=bool)).astype(float) for each in (first, second))
    if min(map(len, samples)) < 2:
        return math.nan, math.nan
    return _bootstrap(samples, lambda one, other, axis: one.mean(axis=axis) - other.mean(axis=axis))


def _bootstrap(samples: tuple[Any, ...], statistic: Callable[..., Any]) -> Interval:
    # Percentiles: the bias-corrected method is undefined where all values are equal.
    found = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLINGS,
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
