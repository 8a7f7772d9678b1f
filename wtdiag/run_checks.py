"""Checks of a trained run beyond its analysis: `baseline`, `attack`, `similarity` and `sharpness`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wtdiag.probes.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from wtdiag.diagnostics.analysis.attacked import Attacked
    from wtdiag.diagnostics.analysis.owed import Arm, Baseline
    from wtdiag.trainers.observe.open_run import ModelRun

Done = Callable[[int, int], object]
"""Called with the number of parts that are done, and of all parts."""


def baseline(
    run: str | os.PathLike[str] | ModelRun,
    *,
    epochs: int = 10,
    seeds: int = 5,
    examples: int = 4000,
    tested: int = 2000,
    by_block: bool = False,
    device: str = "auto",
    done: Done | None = None,
) -> Baseline:
    """Measure how much of a run's accuracy is owed to what its lower layers learned, and write ``baseline.json``.

    A last layer is trained anew, as a linear classifier, on the features of four versions of the layers below it: as
    the run left them, *frozen* at the run's initial weights, *re-randomised* for each seed, and *removed*, so that only
    the input is left. All have the same small budget, and seed by seed the same training examples and order.

    With ``by_block`` each block is frozen, re-randomised and, if its output has the shape of its input, removed alone.
    The learned blocks above it are not trained anew, so a loss shows that they rely on this block, while no loss shows
    that nothing is owed to what it learned.

    Parameters
    ----------
    run
        A run that ``wtdiag train`` made, and whose data is at hand.
    epochs, examples, tested
        The budget: epochs on so many training examples, and the number of test examples.
    seeds
        Number of paired seeds, at least 2.
    by_block
        Whether to change each block alone too.
    device
        Where to compute.
    done
        Function that is called with the number of trainings that are done, and of all.

    Returns
    -------
    Baseline
        Accuracies and differences as shares, with 95 % intervals over seeds and test examples.

    Raises
    ------
    InputError
        If a number is out of range, or the run's network or data cannot be had.
    """
    import numpy as np

    from wtdiag.diagnostics.analysis.owed import Baseline, write_baseline
    from wtdiag.trainers.observe.lower_layers import ARMS, answers, count_blocks
    from wtdiag.trainers.observe.open_run import open_run
    from wtdiag.trainers.observe.recorded import recorded

    for name, value, least in (("epochs", epochs, 1), ("seeds", seeds, 2), ("examples", examples, 100)):
        if value < least:
            raise InputError(f"{name}: expected at least {least}, got {value}")
    if tested < 100:
        raise InputError(f"tested: expected at least 100, got {tested}")
    of = recorded(open_run(run), device)
    right: dict[tuple[str, str], list[NDArray[Any]]] = {}
    trainings = seeds * (len(ARMS) + (count_blocks(of) if by_block else 0))
    found = answers(of, epochs=epochs, seeds=seeds, examples=examples, tested=tested, by_block=by_block)
    for count, (block, arm, _, answered) in enumerate(found, start=1):
        right.setdefault((block, arm), []).append(answered)
        if done is not None:
            done(count, trainings)
    tables = {place: np.stack(each, axis=1).astype(float) for place, each in right.items()}
    learned = tables["", "learned"]
    arms: dict[str, dict[str, Arm]] = {}
    for (block, arm), table in tables.items():
        arms.setdefault(block, {})[arm] = _arm(table, learned)
    result = Baseline(
        step=of.step,
        seeds=seeds,
        epochs=epochs,
        examples=min(examples, len(of.data.train)),
        tested=len(learned),
        arms=arms.pop(""),
        blocks=arms,
    )
    write_baseline(result, of.run.path)
    return result


def attack(
    run: str | os.PathLike[str] | ModelRun,
    *,
    strengths: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
    widths: Sequence[float] = (0.5, 1.0, 2.0),
    pgd_steps: int = 10,
    tested: int = 500,
    device: str = "auto",
    done: Done | None = None,
) -> Attacked:
    """Measure how accuracy falls under perturbed inputs at the last snapshot, and write ``attack.json``.

    FGSM and PGD follow two gradients: the true one of the loss, and the signal that the rule's own feedback sends to
    the inputs. Feedback that is not aligned hides the true gradient from whoever follows it backwards, so that a
    network seems robust; only the true gradient tells. Both are left out where they are the same, in backprop, but for
    the first. Noise and blur need no gradient.

    Parameters
    ----------
    run
        A run that ``wtdiag train`` made, and whose data is at hand.
    strengths
        Shares of the range that each channel has in the training examples (that of all pixel values, where images are
        read from files): the largest change of a value, or the standard deviation of the noise. No value leaves that
        range.
    widths
        Standard deviations of the blur in pixels; data without height or width is not blurred.
    pgd_steps
        Steps of PGD.
    tested
        Number of test examples.
    device
        Where to compute.
    done
        Function that is called with the number of perturbations that are done, and of all.

    Returns
    -------
    Attacked
        Accuracies as shares, with exact 95 % intervals over test examples.

    Raises
    ------
    InputError
        If a number is out of range, or the run's network or data cannot be had.

    References
    ----------
    Athalye, Carlini and Wagner 2018, Obfuscated gradients give a false sense of security, arXiv:1802.00420.
    """
    from wtdiag.diagnostics.analysis.attacked import Attacked, Attempt, write_attacked
    from wtdiag.diagnostics.comparison.intervals import of_share
    from wtdiag.trainers.observe.attacks import perturbed
    from wtdiag.trainers.observe.open_run import open_run
    from wtdiag.trainers.observe.recorded import recorded, right

    for name, values, most in (("strengths", strengths, 1.0), ("widths", widths, 100.0)):
        for value in values:
            if not 0 < value <= most or not math.isfinite(value):
                raise InputError(f"{name}: expected numbers above 0 and up to {most:g}, got {value!r}")
    for name, count, least in (("pgd_steps", pgd_steps, 1), ("tested", tested, 100)):
        if count < least:
            raise InputError(f"{name}: expected at least {least}, got {count}")
    of = recorded(open_run(run), device)
    x, y = of.examples(of.data.test, tested)
    attempts = []
    ways = perturbed(of, x, y, sorted(set(strengths)), sorted(set(widths)), pgd_steps)
    for count, (name, strength, inputs) in enumerate(ways, start=1):
        answered = right(of.model, inputs(), y)
        attempts.append(Attempt(name, strength, float(answered.mean()), *of_share(int(answered.sum()), len(answered))))
        if done is not None:
            done(count, len(ways))
    result = Attacked(of.step, len(y), pgd_steps, tuple(attempts))
    write_attacked(result, of.run.path)
    return result


def similarity(first: str | os.PathLike[str] | ModelRun, second: str | os.PathLike[str] | ModelRun) -> pd.DataFrame:
    """Compare what the layers of two runs make of the same probe batch, at the last snapshot of each.

    Parameters
    ----------
    first, second
        Runs that ``wtdiag train`` made, with the same probe batch.

    Returns
    -------
    pd.DataFrame
        A row for each layer that both have: ``layer``, the debiased linear CKA ``cka`` and the Procrustes distance
        ``procrustes`` of W x over the examples, and ``procrustes_null``, the mean distance with shuffled examples.

    Raises
    ------
    InputError
        If the probe batches differ, a run has none, or the runs share no layer.
    """
    import numpy as np
    import pandas as pd

    from wtdiag.probes.kernels.similarity import linear_cka, procrustes_distance
    from wtdiag.trainers.observe.open_run import open_run
    from wtdiag.trainers.observe.tracer import error_signals

    runs = [open_run(first), open_run(second)]
    (x, y), (other, target) = map(_probe_batch, runs)
    if x.shape != other.shape or not bool((x == other).all()) or not bool((y == target).all()):
        raise InputError(f"runs: {runs[0].path} and {runs[1].path} have different probe batches; expected the same one")
    outputs = [
        {name: of["forward_projection"] for name, of in error_signals(run.model(int(run.steps[-1])), x, y).items()}
        for run in runs
    ]
    shuffles = [np.random.default_rng(seed).permutation(len(x)) for seed in range(5)]
    rows = []
    for layer in (name for name in outputs[0] if name in outputs[1]):
        a, b = (each[layer].reshape(len(each[layer]), -1) for each in (outputs[0], outputs[1]))
        if len(a) != len(x) or len(b) != len(x):
            continue  # a layer that is used several times mixes its uses with the examples
        null = float(np.mean([procrustes_distance(a, b[shuffle]) for shuffle in shuffles]))
        rows.append((layer, linear_cka(a, b), procrustes_distance(a, b), null))
    if not rows:
        raise InputError(f"runs: {runs[0].path} and {runs[1].path} share no layer; expected runs of one model")
    return pd.DataFrame(rows, columns=["layer", "cka", "procrustes", "procrustes_null"])


def sharpness(run: str | os.PathLike[str] | ModelRun) -> float:
    """Return the largest eigenvalue of the loss's Hessian on the probe batch at the last snapshot, by Lanczos.

    The loss is the cross-entropy, the network is in evaluation mode, and all weights count. Flatter minima have smaller
    ones; it is not invariant to a change of the weights' scale, which batch norm hides from the loss.

    Parameters
    ----------
    run
        A run that ``wtdiag train`` made.

    Raises
    ------
    InputError
        If the run has no probe batch or no snapshot.

    References
    ----------
    Ghorbani, Krishnan and Xiao 2019, arXiv:1901.10159.
    """
    import numpy as np
    from torch.nn.functional import cross_entropy

    from wtdiag.probes.kernels.lanczos import lanczos
    from wtdiag.trainers.observe.open_run import open_run
    from wtdiag.trainers.observe.sharpness import hessian_product

    opened = open_run(run)
    batch = _probe_batch(opened)
    product, size = hessian_product(opened.model(int(opened.steps[-1])), *batch, cross_entropy)
    start = np.random.default_rng(0).normal(size=size)
    return lanczos(product, start, lambda values, weights: values[-1], tolerance=1e-5, most=128)


def _arm(table: NDArray[np.float64], learned: NDArray[np.float64]) -> Arm:
    """Return the accuracy of an arm and the gain of the learned one over it; rows are test examples, columns seeds."""
    from wtdiag.diagnostics.analysis.owed import Arm
    from wtdiag.diagnostics.comparison.intervals import of_crossed_mean

    low, high = of_crossed_mean(table)
    gain = learned - table
    gain_low, gain_high = of_crossed_mean(gain) if gain.any() else (0.0, 0.0)
    return Arm(float(table.mean()), max(low, 0.0), min(high, 1.0), float(gain.mean()), gain_low, gain_high)


def _probe_batch(run: ModelRun) -> tuple[Tensor, Tensor]:
    """Return the probe batch of a run that has snapshots to pass it through."""
    batch = run.probe_batch()
    if batch is None or not run.steps.size:
        raise InputError(f"run: {run.path} has no probe batch or no snapshot; expected both")
    inputs, targets = batch
    if isinstance(inputs, Mapping):
        raise InputError(f"run: the probe batch of {run.path} has inputs by name; expected one tensor")
    return inputs, targets
