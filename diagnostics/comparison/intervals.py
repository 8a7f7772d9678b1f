"""95 % intervals of a mean, a share and a difference of shares; the same numbers always give the same interval."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

Interval = tuple[float, float]


def of_mean(values: ArrayLike) -> Interval:
    r"""Return Student's interval of the mean of ``values``, such as the differences of pairs.

    It is :math:`\bar v \pm t_{n-1} \, s / \sqrt n`, with the 97.5 % quantile of the t distribution. Pairs are
    subtracted first, so that what both runs of a pair share cancels. It holds the true mean of normal values in 95 % of
    cases, however few there are.

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
    Student 1908, "The probable error of a mean", Biometrika 6(1).

    Examples
    --------
    >>> [round(bound, 3) for bound in of_mean([0.1, 0.2, 0.3])]
    [-0.048, 0.448]
    >>> of_mean([0.5])
    (nan, nan)
    """
    return of_crossed_mean(np.asarray(values, dtype=float).reshape(1, -1))


def of_crossed_mean(values: ArrayLike, less: ArrayLike | None = None, *, variance: float = 0.0) -> Interval:
    r"""Return the interval of the mean of a table whose rows and columns are both samples.

    With R rows and C columns, the variance of the mean is estimated by :math:`s_r^2 / R + s_c^2 / C - s_e^2 / (RC)`
    from the variances of the means of rows, of those of columns, and of what they leave over, which is in both; it is
    never less than the larger of the first two. The interval is Student's, with Satterthwaite's degrees of freedom. If
    a second table is subtracted, the columns of the two are pairs, while the rows of each are a sample of their own. A
    single row is not a sample. By simulation, it holds the true mean of normal values in 93 to 99 % of cases.

    Parameters
    ----------
    values
        A row for each configuration or test example and a column for each seed, all finite.
    less
        Table whose mean is subtracted: any number of rows, and the same columns.
    variance
        Variance of the mean from another source, which is known well.

    Returns
    -------
    low, high
        In the units of ``values``; NaN for fewer than two columns or no row.

    References
    ----------
    Satterthwaite 1946, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2(6).

    Examples
    --------
    >>> of_crossed_mean([[0.5, 0.5], [0.5, 0.5]], less=[[0.25, 0.25]])
    (0.25, 0.25)
    """
    tables = [np.asarray(table, dtype=float) for table in (values, less) if table is not None]
    if any(len(table) < 1 or table.shape[1] < 2 for table in tables):
        return math.nan, math.nan
    columns = tables[0].shape[1]
    by_column = sum(sign * table.mean(axis=0) for sign, table in zip((1, -1), tables, strict=False))
    parts = [(np.var(by_column, ddof=1) / columns, columns - 1)]
    shared = 0.0
    for table in tables:
        if (rows := len(table)) < 2:
            continue
        by_row = table.mean(axis=1)
        parts.append((np.var(by_row, ddof=1) / rows, rows - 1))
        rest = table - by_row[:, None] - table.mean(axis=0) + table.mean()
        shared += (rest**2).sum() / ((rows - 1) * (columns - 1)) / (rows * columns)
    summed = sum(part for part, _ in parts)
    of_rows = summed - parts[0][0]
    total = max(summed - shared, parts[0][0], of_rows) + variance
    freedom = total**2 / max(sum(part**2 / count for part, count in parts), np.finfo(float).tiny)
    mean, half = float(np.mean(by_column)), float(stdtrit(max(freedom, 1.0), 0.975) * math.sqrt(total))
    return mean - half, mean + half


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
    from scipy.stats import binomtest  # here, because its import takes as long as a fifth of a report

    interval = binomtest(count, of).proportion_ci(confidence_level=0.95, method="exact")
    return float(interval.low), float(interval.high)


def of_share_difference(first: ArrayLike, second: ArrayLike) -> Interval:
    r"""Return the interval of the share of true values in ``first`` minus that in ``second``, two independent samples.

    From the shares :math:`p` and their Wilson intervals :math:`(l, u)`, it reaches from the difference down by
    :math:`\sqrt{(p_1 - l_1)^2 + (u_2 - p_2)^2}` and up by :math:`\sqrt{(u_1 - p_1)^2 + (p_2 - l_2)^2}`.

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
    Newcombe 1998, "Interval estimation for the difference between independent proportions", Statistics in Medicine
    17(8), method 10.

    Examples
    --------
    >>> [round(bound, 2) for bound in of_share_difference([True] * 20, [False] * 20)]
    [0.77, 1.0]
    """
    samples = [np.asarray(each, dtype=bool) for each in (first, second)]
    if min(map(len, samples)) < 2:
        return math.nan, math.nan
    from scipy.stats import binomtest

    (p, low, high), (q, below, above) = (
        (each.mean(), *binomtest(int(each.sum()), len(each)).proportion_ci(0.95, method="wilson")) for each in samples
    )
    return float(p - q - math.hypot(p - low, above - q)), float(p - q + math.hypot(high - p, q - below))
