"""A callback of Hugging Face's Trainer that records a training."""

from __future__ import annotations

from typing import Any

from wtdiag.probes.errors import InputError
from wtdiag.trainers.callbacks.hook import Hook
from wtdiag.trainers.callbacks.probe_examples import library_hook

try:
    from transformers import TrainerCallback
except ImportError:
    raise InputError("transformers: is not installed; install it with: pip install 'wtdiag[transformers]'") from None


class TransformersCallback(TrainerCallback):
    """A callback that records a training: ``Trainer(..., callbacks=[TransformersCallback("runs/mine")])``.

    Steps are those of the optimiser. What the Trainer logs is logged under its own names, ``loss`` among them. Unless a
    ``probe_batch`` is given, it is made of 64 examples of the training data; the network is given it by name, as in
    training but without the ``labels``.

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
        self._hook = library_hook(model, self._path, rest.get("train_dataloader"), self._options)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Note a step."""
        if self._hook is not None:
            self._hook()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        """Log what the Trainer logs."""
        if self._hook is not None and logs:
            self._hook.log_known(logs)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Take the last snapshot and end the run."""
        if self._hook is not None:
            self._hook.close()
            self._hook = None
