"""A callback of Lightning that records a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wtdiag.probes.errors import InputError
from wtdiag.trainers.callbacks.hook import Hook
from wtdiag.trainers.callbacks.probe_examples import library_hook

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise InputError("lightning: is not installed; install it with: pip install 'wtdiag[lightning]'") from None


class LightningCallback(Callback):
    """A callback that records a fit: ``Trainer(callbacks=[LightningCallback("runs/mine")])``.

    Steps are those of the optimiser, and names of layers those in the LightningModule. What the module logs is logged
    at the end of each validation, under its own names. Unless a ``probe_batch`` is given, it is made of 64 examples of
    the training data, which the module's ``forward`` must take.

    Parameters
    ----------
    path
        The run directory to make.
    **options
        As for `trainers.callbacks.hook.Hook`.
    """

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__()
        self._path, self._options, self._hook = path, options, None

    _hook: Hook | None
    _taken: int  # steps of the optimisers that were noted

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the run directory and take the first snapshot."""
        self._hook = library_hook(pl_module, self._path, trainer.train_dataloader, self._options)
        self._taken = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note a step, if the optimiser took one after this batch."""
        if self._hook is not None and trainer.global_step > self._taken:
            self._taken = trainer.global_step  # not that of the hook: a fit may go on, or have several optimisers
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs  # none if the module optimises
            self._hook(**({} if loss is None else {"loss": loss}))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the module logged."""
        if self._hook is not None and not trainer.sanity_checking:
            self._hook.log_known(trainer.callback_metrics)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the last snapshot and end the run."""
        if self._hook is not None:
            self._hook.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what was recorded."""
        if self._hook is not None:
            self._hook.close("interrupted")
