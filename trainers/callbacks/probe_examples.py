"""A probe batch from the data that a library's loop trains on, taken so that the training does not notice."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError, with_type
from wtdiag.trainers.callbacks.hook import Hook
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.observe.inputs import Inputs
from wtdiag.trainers.record.arguments import probe_tensors

EXAMPLES = 64
"""Examples of a probe batch that a callback takes by itself."""
_LABELS = ("labels", "label")
_LARGE = 1000  # a longer list holds examples, and not transforms


def library_hook(model: nn.Module, path: str, loader: Any, options: Mapping[str, Any]) -> Hook:
    """Return the hook of a library's loop; unless its options give a ``probe_batch``, the loader's data set does."""
    if "probe_batch" not in options:
        options = {**options, "probe_batch": probe_examples(model, loader)}
    return Hook(model, path, **options)


def probe_examples(model: nn.Module, loader: Any) -> tuple[Inputs, Tensor] | None:
    """Return a random sample of a loader's data set, always the same, as inputs and targets for a probe batch.

    The data set is asked for the examples by their indices, and the loader's collator makes a batch of them, so that
    neither its sampler nor its workers run. The states of PyTorch's, NumPy's and Python's random numbers, and of the
    generators that the data set keeps, are afterwards what they were.

    Parameters
    ----------
    model
        The network that is trained; there is no probe batch for layers of other code, which wtdiag does not run.
    loader
        A DataLoader, whose batches are pairs of inputs and targets, or tensors by name with ``labels`` or ``label``
        among them.

    Returns
    -------
    tuple or None
        None, with a warning, if there are no such examples.

    Examples
    --------
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> loader = DataLoader(TensorDataset(torch.eye(100), torch.arange(100)), shuffle=True)
    >>> inputs, targets = probe_examples(transport_free(nn.Linear(100, 2), "fa"), loader)
    >>> inputs.shape, torch.equal(inputs.argmax(1), targets)
    (torch.Size([64, 100]), True)
    """
    if not any(synapses(model)):
        return None
    try:
        dataset = loader.dataset
        size = len(dataset)  # a stream has none, and reading it would take examples from the training
        with _kept_random_states(dataset):
            chosen = random.Random(0).sample(range(size), min(EXAMPLES, size))
            batch = loader.collate_fn([dataset[index] for index in chosen])
        inputs, targets = probe_tensors(_named(batch) if isinstance(batch, Mapping) else batch)
        for each in inputs.values() if isinstance(inputs, Mapping) else (inputs,):
            if each.shape[:1] != targets.shape[:1]:
                raise InputError(f"inputs {tuple(each.shape)} and targets {tuple(targets.shape)} differ in number")
        return inputs, targets
    except Exception as error:  # the data set and its collator are the user's
        warnings.warn(
            f"no probe batch, so no error signals: the training data gave none ({with_type(error):.200}); "
            "give probe_batch=",
            stacklevel=4,  # where the library calls the callback
        )
        return None


def _named(batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a batch by name, and its labels."""
    label = next((name for name in _LABELS if name in batch), None)
    if label is None:
        raise InputError(f"a batch holds {', '.join(batch)}; expected {' or '.join(_LABELS)} among them")
    return {name: each for name, each in batch.items() if isinstance(each, Tensor) and name != label}, batch[label]


@contextmanager
def _kept_random_states(dataset: Any) -> Iterator[None]:
    """Set the global random numbers and the generators inside a data set back to what they were."""
    states: list[tuple[Callable[[Any], object], Any]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),  # noqa: NPY002
        *map(_state, _generators(dataset)),
    ]
    cuda = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            for restore, state in states:
                restore(state)


def _generators(dataset: Any) -> list[Any]:
    """Return the random number generators among the attributes of a data set, of what it wraps and its transforms."""
    found, seen, waiting = [], set(), [dataset]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType | Tensor | np.ndarray):
            continue
        seen.add(id(each))
        if isinstance(each, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
            found.append(each)
        elif isinstance(each, list | tuple | dict):
            if len(each) <= _LARGE:
                waiting += each.values() if isinstance(each, dict) else each
        else:
            waiting += getattr(each, "__dict__", {}).values()
    return found


def _state(generator: Any) -> tuple[Callable[[Any], object], Any]:
    """Return the function that restores a generator's state, and that state."""
    if isinstance(generator, torch.Generator):
        return generator.set_state, generator.get_state()
    if isinstance(generator, random.Random):
        return generator.setstate, generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.set_state, generator.get_state()
    bits = generator.bit_generator
    return lambda state: setattr(bits, "state", state), bits.state
