"""A callback of skorch that records a fit."""

from __future__ import annotations

from typing import Any

from wtdiag.probes.errors import InputError
from wtdiag.trainers.callbacks.hook import Hook
from wtdiag.trainers.callbacks.probe_examples import library_hook

try:
    from skorch.callbacks import Callback
except ImportError:
    raise InputError("skorch: is not installed; install it with: pip install 'wtdiag[skorch]'") from None


class SkorchCallback(Callback):
    """A callback that records a fit: ``NeuralNetClassifier(..., callbacks=[SkorchCallback("runs/mine")])``.

    At the end of each epoch ``valid_loss`` and ``valid_acc`` are logged as ``validation_loss`` and
    ``validation_accuracy``. Unless a ``probe_batch`` is given, it is made of 64 examples of the training data.

    Parameters
    ----------
    path
        The run directory to make.
    options
        Options of `trainers.callbacks.hook.Hook`, by name.
    """

    def __init__(self, path: str, options: dict[str, Any] | None = None) -> None:
        self.path, self.options = path, options  # the names of the parameters, as scikit-learn copies them

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **rest: Any) -> None:
        """Begin anew."""
        self.hook_ = None

    hook_: Hook | None

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **rest: Any) -> None:
        """Make the run directory and take the first snapshot, when the training data are known."""
        if self.hook_ is None:
            loader = net.get_iterator(dataset_train, training=True)
            self.hook_ = library_hook(net.module_, self.path, loader, self.options or {})

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **rest: Any) -> None:
        """Note a step."""
        if training and self.hook_ is not None:
            self.hook_(loss=rest["loss"])

    def on_epoch_end(self, net: Any, **rest: Any) -> None:
        """Log the validation of the epoch, if there is one."""
        if self.hook_ is None:
            return
        names = {"valid_loss": "validation_loss", "valid_acc": "validation_accuracy"}
        self.hook_.log(**{ours: net.history[-1][name] for name, ours in names.items() if name in net.history[-1]})

    def on_train_end(self, net: Any, **rest: Any) -> None:
        """Take the last snapshot and end the run."""
        if self.hook_ is not None:
            self.hook_.close()
