"""Shapley values: shares of a whole that do not depend on the order in which its causes are counted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXACT = 6
"""Up to so many players all coalitions are evaluated, 2⁶ = 64 of them."""
_EVALUATIONS = 64  # more players get as many orders as these allow, or two pairs
_TOLERANCE = 0.1  # of the whole: once no standard error is larger, the orders suffice


def shapley(value: Callable[[frozenset[int]], Any], players: int, resolution: Any = 0.0) -> tuple[Array, Array]:
    """Return the Shapley value of each player, and its standard error.

    A player's value is what it adds to the coalition of those before it, averaged over all orders of the players:

        φᵢ = Σ_S |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S)).

    The values add up to v(all) − v(∅). With more than `EXACT` players, random orders are drawn, always from the same
    seed, until the errors are below a tenth of the whole, or with max(64, 4 n) evaluations. Each is followed by
    its reverse, in which those who stood early stand late. The second pair is the first one rotated by half, so that
    each player stands in every quarter of an order. Orders that follow a network's depth are avoided: in them, the
    layers at its two ends stand first or last, where a player's value is largest or smallest.

    Parameters
    ----------
    value
        Function of a coalition that returns one number or an array of several; called once for each coalition.
    players
        Their number n; the players are 0, 1, ...
    resolution
        Standard error that is small enough however small the whole is.

    Returns
    -------
    shares, errors : ndarray
        Over (players, numbers). The errors are zero if all coalitions were evaluated. Otherwise orders are taken as
        independent, which overstates the error, because a pair's deviations partly cancel.

    References
    ----------
    Shapley 1953, A value for n-person games. Mitchell et al. 2022, arXiv:2104.12199, for antithetic orders.

    Examples
    --------
    >>> shapley(lambda coalition: [float(len(coalition) == 2)], players=2)[0].ravel()
    array([0.5, 0.5])
    """
    known: dict[frozenset[int], Array] = {}

    def of(coalition: Collection[int]) -> Array:
        key = frozenset(coalition)
        if key not in known:
            known[key] = np.atleast_1d(np.asarray(value(key), np.float64))
        return known[key]

    with np.errstate(invalid="ignore"):  # what is infinite has no shares
        whole = of(range(players)) - of(())
        if players <= EXACT or np.isnan(whole).all():
            shares = _over_all(of, players) if players <= EXACT else np.full((players, len(whole)), math.nan)
            return shares, 0 * shares
        walks: list[Array] = []
        pairs = max(2, _EVALUATIONS // (2 * players))
        for order in itertools.islice(_orders(players), 2 * pairs):
            walks.append(marginals(of, order))
            shares, errors = np.mean(walks, axis=0), np.std(walks, axis=0) / math.sqrt(max(1, len(walks) - 1))
            if len(walks) % 2 == 0 and not (errors > np.maximum(_TOLERANCE * np.abs(whole), resolution)).any():
                break
        return shares, errors


def marginals(value: Callable[[frozenset[int]], Any], order: Sequence[int]) -> Array:
    """Return what each player adds to those before it in an order, over (players, numbers)."""
    values = np.stack([np.atleast_1d(value(frozenset(order[:count]))) for count in range(len(order) + 1)])
    shares = np.empty((len(order), values.shape[1]))
    shares[list(order)] = np.diff(values, axis=0)
    return shares


def _over_all(of: Callable[[Collection[int]], Array], players: int) -> Array:
    shares = np.zeros((players, len(of(()))))
    for player in range(players):
        others = [other for other in range(players) if other != player]
        for size in range(players):
            weight = 1 / (players * math.comb(players - 1, size))
            for coalition in itertools.combinations(others, size):
                shares[player] += weight * (of((*coalition, player)) - of(coalition))
    return shares


def _orders(players: int) -> Iterator[list[int]]:
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(players).tolist()
        for turned in (order, order[players // 2 :] + order[: players // 2]):
            yield turned
            yield turned[::-1]
