"""A callback of Hugging Face's Trainer that records a training."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from wtdiag.probes.errors import InputError
from wtdiag.trainers.callbacks.hook import Hook
from wtdiag.trainers.layers.convert import synapses

try:
    from transformers import TrainerCallback
except ImportError:
    raise InputError("transformers: is not installed; install it with: pip install 'wtdiag[transformers]'") from None

_EXAMPLES = 64


class TransformersCallback(TrainerCallback):
    """A callback that records a training: ``Trainer(..., callbacks=[TransformersCallback("runs/mine")])``.

    Steps are those of the optimiser. What the Trainer logs is logged under its own names, ``loss`` among them. Unless a
    ``probe_batch`` is given, it is made of the first 64 examples of the Trainer's data, of those for evaluation if it
    has evaluated before; the network is given it by name, as in training but without the ``labels``.

    Parameters
    ----------
    path
        The run directory to make.
    **options
        As for `trainers.callbacks.hook.Hook`.
    """

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__()
        self._path, self._options = path, options
        self._hook: Hook | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        """Make the run directory and take the first snapshot."""
        options = dict(self._options)
        if "probe_batch" not in options and any(synapses(model)):  # networks of other code are not run
            options["probe_batch"] = _first_examples(rest.get("eval_dataloader") or rest.get("train_dataloader"))
        self._hook = Hook(model, self._path, **options)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Note a step."""
        if self._hook is not None:
            self._hook()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        """Log what the Trainer logs."""
        if self._hook is not None and logs:
            self._hook.log(**{name: value for name, value in logs.items() if name.isidentifier() and name != "step"})

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Take the last snapshot and end the run."""
        if self._hook is not None:
            self._hook.close()
            self._hook = None


def _first_examples(loader: Any) -> tuple[dict[str, Tensor], Tensor] | None:
    """Return the first examples of a data loader and their labels; None, with a warning, if it has no such examples."""
    try:
        with torch.random.fork_rng():  # a data set may draw random numbers
            examples = [loader.dataset[i] for i in range(min(_EXAMPLES, len(loader.dataset)))]
            batch = loader.collate_fn(examples)
        inputs = {name: each for name, each in batch.items() if isinstance(each, Tensor) and name != "labels"}
        return inputs, batch["labels"]
    except Exception as error:  # the data set and its collator are the user's
        said = f"{type(error).__name__}: {error}"
        warnings.warn(f"no probe batch, so no error signals: the Trainer's data gave none ({said:.200})", stacklevel=2)
        return None
