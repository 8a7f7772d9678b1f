"""Cost of measuring the weights, relative to one pass through memory, to scipy's singular values and to WeightWatcher.

The network is torchvision's ResNet-18 as initialised, with W and B of all 21 layers, 93 MB. Expected result: all probes
that compare W with B take at most the time of 2 passes over both, all singular values are 5 times as fast as scipy's,
and the numbers of WeightWatcher's `analyze` are 2.5 times as fast on one thread and 4 times on two, with equal values.
WeightWatcher has one thread in both cases.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import scipy.linalg
import torchvision
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn

from bench.speed.timing import paired_ratios
from wtdiag.probes import PROBES, Quantities
from wtdiag.probes.measures.spectra.singular_values import decompose

ROUNDS = 15
COMPARING = {
    "angle, sign, norms": ["weight_angle", "sign_agreement", "forward_norm", "feedback_norm", "norm_ratio"],
    "all of W and B": [name for name, probe in PROBES.items() if "weight_comparison" in probe.uses and not probe.slow],
}
"""Probes that share one pass over both weights; only the first group has a target."""
# WeightWatcher calls these alpha, D, xmin, num_pl_spikes, stable_rank, sqrt(spectral_norm), entropy, sv_max / sv_min.
WATCHED = [
    f"forward_{name}"
    for name in (
        "power_law_alpha", "power_law_distance", "power_law_xmin", "power_law_n",
        "stable_rank", "spectral_norm", "effective_rank", "condition_number",
    )
]  # fmt: skip

Weight = NDArray[Any]


def run() -> None:
    """Measure and print."""
    model = torchvision.models.resnet18()
    weights = {
        name: layer.weight.detach().numpy()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    with threadpool_limits(1, user_api="blas"):
        _compare(list(weights.values()))
        _decompose(list(weights.values()))
    _watch(model, weights)


def _compare(weights: list[Weight]) -> None:
    generator = np.random.default_rng(0)
    pairs = [(weight, generator.normal(size=weight.shape).astype(np.float32)) for weight in weights]
    print(f"\nprobes that compare W with B, {2e-6 * sum(w.nbytes for w in weights):.0f} MB; target of the first: 2.00")
    print(f"{'threads':<9}{'pass, ms':>9}{'GB/s':>6}  {'probes':<20}{'ms':>6}{'ratio':>8}")
    for threads, (which, names) in product((1, 2), COMPARING.items()):
        with ThreadPoolExecutor(threads) as pool:
            result = paired_ratios(
                # numpy's function that, of those that read two arrays, comes closest to the memory's bandwidth
                {
                    "pass": partial(_all, pool, _pass_over, pairs),
                    "probes": partial(_all, pool, partial(_measure, names), pairs),
                },
                rounds=ROUNDS,
            )
        seconds, (probing, ratio) = result["pass"][0], result["probes"]
        rate = 2e-9 * sum(w.nbytes for w in weights) / seconds
        what = f"{which} ({len(names)})"
        print(f"{threads:<9}{1e3 * seconds:9.1f}{rate:6.1f}  {what:<20}{1e3 * probing:6.1f}{ratio:8.2f}", flush=True)


def _all(pool: ThreadPoolExecutor, function: Callable[[Any], object], items: Iterable[Any]) -> list[object]:
    return list(pool.map(function, items))


def _pass_over(pair: tuple[Weight, Weight]) -> object:
    return np.dot(pair[0].reshape(-1), pair[1].reshape(-1))


def _measure(names: Sequence[str], pair: tuple[Weight, Weight]) -> list[float]:
    quantities = Quantities(forward=pair[0], feedback=pair[1])
    return [quantities[name] for name in names]


def _decompose(weights: list[Weight]) -> None:
    matrices = [weight.reshape(len(weight), -1) for weight in weights]
    result = paired_ratios(
        {
            "scipy": lambda: [scipy.linalg.svdvals(matrix.astype(np.float64)) for matrix in matrices],
            "ours": lambda: [decompose(matrix) for matrix in matrices],
        },
        rounds=5,
        repeat=1,
    )
    errors = [_error(size) for size in (64, 256, 512)]
    print(f"\nall singular values of {len(matrices)} matrices, one thread")
    print(f"scipy.linalg.svdvals {1e3 * result['scipy'][0]:8.0f} ms")
    print(
        f"singular values      {1e3 * result['ours'][0]:8.0f} ms, {1 / result['ours'][1]:.2f} times as fast (target 5)"
    )
    print(f"largest relative error down to σ/σ₁ = 1e-5: {max(errors):.1e} (limit 1e-6)")


def _error(size: int) -> float:
    """Return the relative error of singular values from 1 to 1e-5, for a matrix that is built from them."""
    generator = np.random.default_rng(size)
    left, right = (np.linalg.qr(generator.normal(size=(size, size)))[0] for _ in range(2))
    sigma = np.geomspace(1, 1e-5, size)
    return float(np.max(np.abs(decompose(left * sigma @ right).values / sigma - 1)))


def _watch(model: nn.Module, weights: dict[str, Weight]) -> None:
    with _silence():
        import weightwatcher  # imported here because it takes seconds and only this benchmark needs it

        watcher = weightwatcher.WeightWatcher(model=model)
        theirs = watcher.analyze().set_index("longname")
    print("\nthe numbers of WeightWatcher's analyze, in its unfolding: a convolution's kernel as k² matrices (out, in)")
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(2) as two, threadpool_limits(1, user_api="blas"), _silence():
        # WeightWatcher has one BLAS thread too, with which it is fastest on these matrices.
        result = paired_ratios(
            {
                "WeightWatcher": watcher.analyze,
                "one thread": partial(_all, one, _watched, weights.values()),
                "two threads": partial(_all, two, _watched, weights.values()),
            },
            rounds=3,
            repeat=1,
        )
    print(f"WeightWatcher {1e3 * result['WeightWatcher'][0]:7.0f} ms, one BLAS thread")
    for name, target in (("one thread", 2.5), ("two threads", 4.0)):
        seconds, ratio = result[name]
        print(f"{name:<13} {1e3 * seconds:7.0f} ms, {1 / ratio:.2f} times as fast (target {target})")
    columns = {"alpha": 0, "D": 1, "stable_rank": 4}
    worst = {
        column: max(abs(_watched(weight)[place] / theirs.loc[name, column] - 1) for name, weight in weights.items())
        for column, place in columns.items()
    }
    print(
        "largest relative difference:",
        ", ".join(f"{name} {value:.0e}" for name, value in worst.items()),
        "(limit 1e-6)",
    )


def _watched(weight: Weight) -> list[float]:
    slices = np.moveaxis(weight.reshape(*weight.shape[:2], -1), -1, 0)
    quantities = Quantities(forward=slices.reshape(-1, weight.shape[1]), groups=len(slices))
    return [quantities[name] for name in WATCHED]


@contextlib.contextmanager
def _silence() -> Any:
    """Keep WeightWatcher's warnings out of the table."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
