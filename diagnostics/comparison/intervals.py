"""95 % intervals of a mean, a share and a difference of shares; the same numbers always give the same interval."""

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
    r"""Return the bootstrap interval of the mean of ``values``, such as the differences of pairs.

    Its ends are the 2.5 % and 97.5 % percentiles of :math:`\frac 1 n \sum_i v_{k_i}` over 9999 resamplings, with
    :math:`k_i` drawn with replacement. Pairs are subtracted first and then resampled, so that what both runs of a pair
    share cancels. The order of the values does not matter. The interval from few values is too narrow: by simulation,
    that of 5, 10 or 20 normal values holds the true mean in 85, 90 or 93 % of cases.

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
    numbers = np.sort(np.asarray(values, dtype=float))  # sorted, because the order of seeds has no meaning
    if len(numbers) < 2:
        return math.nan, math.nan
    return _bootstrap((numbers,), np.mean)


def of_crossed_mean(values: ArrayLike, less: ArrayLike | None = None) -> Interval:
    r"""Return the bootstrap interval of the mean of a table whose rows and columns are both samples.

    Its ends are the 2.5 % and 97.5 % percentiles of :math:`\frac 1 {mn} \sum_{ij} v_{k_i l_j}` over 9999 resamplings,
    with rows :math:`k_i` and columns :math:`l_j` drawn independently and with replacement. If a second table is
    subtracted, the columns of the two are pairs and drawn together, while rows are drawn for each table separately. A
    single row is not resampled. The interval from few rows that differ much is too narrow: by simulation, that of 3, 5
    or 10 normal rows holds the true mean in 74, 83 or 89 % of cases.

    Parameters
    ----------
    values
        A row for each configuration and a column for each seed, all finite.
    less
        Table whose mean is subtracted: any number of rows, and the same columns.

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
    # sorted, because the order of configurations and seeds has no meaning
    order = np.argsort(sum(sign * table.mean(axis=0) for sign, table in zip((1, -1), tables, strict=False)))
    drawn_columns = rng.multinomial(columns, np.full(columns, 1 / columns), RESAMPLINGS) / columns
    means = np.zeros(RESAMPLINGS)
    for sign, table in zip((1, -1), tables, strict=False):
        rows = len(table)
        drawn_rows = rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLINGS) / rows
        sorted_table = table[np.argsort(table.mean(axis=1))][:, order]
        means += sign * ((drawn_rows @ sorted_table) * drawn_columns).sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


@cache
def of_share(count: int, of: int) -> Interval:
    r"""Return the exact interval of a share, ``count`` of ``of``.

    It holds all shares :math:`p` with :math:`P(X \ge k \mid p) \ge 0.025` and :math:`P(X \le k \mid p) \ge 0.025`, for
    binomial :math:`X`, and so the true share in at least 95 % of cases.

    Returns
    -------
    low, high
        From 0 to 1; NaN if ``of`` is 0.

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
    interval = binomtest(count, of).proportion_ci(confidence_level=0.95, method="exact")
    return float(interval.low), float(interval.high)


def of_share_difference(first: ArrayLike, second: ArrayLike) -> Interval:
    r"""Return the bootstrap interval of the share of true values in ``first`` minus that in ``second``.

    It is computed as in `of_mean`, but each sample is resampled separately, because trials of two searches are not
    paired.

    Parameters
    ----------
    first, second
        One truth value for each trial.

    Returns
    -------
    low, high
        From −1 to 1; NaN if one of the samples has fewer than two values.

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
    # Percentiles are used because the bias-corrected method is undefined if all values are equal.
    result = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLINGS,
        vectorized=True,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
