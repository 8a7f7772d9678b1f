"""The run directory as a training loop writes it: any loop, one line for each snapshot."""

from __future__ import annotations

import dataclasses
import math
import operator
import os
import shlex
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records import rundir
from wtdiag.probes.records.files import check_json
from wtdiag.probes.records.rundir import ENDED
from wtdiag.probes.records.schema import CONFIG, open_run, snapshot_path, write_json
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.observe.tensors import is_recordable, to_numpy
from wtdiag.trainers.record.provenance import environment
from wtdiag.trainers.record.staging import Staging, is_finite, plain_name, unrecorded, unwrap
from wtdiag.trainers.record.writer import BackgroundWriter


class Recorder:
    """Records a converted model while any loop trains it.

    The training thread only copies the tensors; a second thread writes them. The model is never changed. In
    distributed training rank 0 records and the others do nothing. Names are those of the user's own module:
    DistributedDataParallel and torch.compile are looked through.

    Parameters
    ----------
    model
        A model with layers from `trainers.layers.convert.transport_free`.
    path
        The run directory to make.
    config
        Entries for ``config.json`` beside those found out here (versions, command, rule): settings of yours
        go under ``{"settings": {...}}``.
    probe_batch
        (inputs, targets), the fixed batch on which error signals will be measured.
    force
        Replace the run that ``path`` holds.

    Raises
    ------
    InputError
        If ``path`` holds a run and ``force`` is not given, or holds anything else; if another process is recording
        in it; if nothing in ``model`` is converted, or a size in it is not known before the first batch; if
        ``probe_batch`` is no pair of tensors; if the disk refuses. A write that fails in the background is raised by
        the next call of any method.

    Examples
    --------
    >>> import tempfile
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> model = transport_free(nn.Sequential(nn.Linear(3, 2)), "kp")
    >>> with Recorder(model, Path(tempfile.mkdtemp(), "mine")) as recorder:
    ...     for step in range(3):
    ...         recorder.snapshot(step, loss=0.5**step)
    >>> run = open_run(recorder.path)
    >>> run.steps, run.config["status"], run.metrics.loss.tolist()
    (array([0, 1, 2]), 'finished', [1.0, 0.5, 0.25])
    """

    path: Path
    active: bool
    _writer: BackgroundWriter
    _held: Staging
    _closed: bool
    _release: Callable[[], object]

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        probe_batch: tuple[Tensor, Tensor] | None = None,
        force: bool = False,
    ) -> None:
        self._attach(model, path)
        if not self.active:
            return
        self._config = {**_own_config(self._model), **_checked(config or {}), "status": "running"}
        batch = None
        if probe_batch is not None:
            batch = rundir.probe_dataset(*(to_numpy(tensor.detach().cpu()) for tensor in _two_tensors(probe_batch)))
        self._hold(rundir.make(self.path, self._config, force=force))
        if batch is not None:
            rundir.write_probe_batch(self.path, batch)

    @classmethod
    def resume(cls, model: nn.Module, path: str | os.PathLike[str], step: int) -> Self:
        """Go on recording a run from ``step``, that of its checkpoint, whose weights ``model`` must hold.

        Snapshots and metrics of later steps are removed, to be recorded again; so is what a killed writer
        left half-written. The model is staged as of ``step``: if the loop calls `stage` whenever it takes a
        checkpoint, the files end up the same as if it had never been killed.

        Raises
        ------
        InputError
            If ``path`` is not a run directory, if another process is recording in it, or the disk refuses.
        """
        recorder = cls.__new__(cls)
        recorder._attach(model, path)
        if recorder.active:
            open_run(path)  # it is a run
            recorder._hold(rundir.Hold(recorder.path))
            recorder._config = rundir.rewind(recorder.path, _whole("step", step))
            recorder._steps = set(open_run(path).steps.tolist())
            recorder._note("running", instead_of="interrupted")
            recorder.stage(step)
        return recorder

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps that are recorded, those being written included, ascending."""
        return tuple(sorted(self._steps))

    def snapshot(self, step: int, **metrics: Any) -> None:
        """Record the model as it is now, and the metrics if any are given.

        Raises
        ------
        InputError
            If ``step`` is no whole number or recorded already, or an earlier write failed.
        """
        if not self._ready():
            return
        step = _whole("step", step)
        if step in self._steps:
            raise InputError(f"step: {step} is recorded already in {self.path}; steps must differ")
        if metrics:
            self.log(step, **metrics)
        staging = self._writer.take()
        try:
            staging.fill(step, self._model)
        except BaseException:
            self._writer.give(staging)
            raise
        self._write(staging)

    def log(self, step: int, **metrics: Any) -> None:
        """Add a line of metrics: numbers (tensors of one element too), texts, truth values or None.

        Raises
        ------
        InputError
            If a value is anything else, or an earlier write failed.
        """
        if self._ready():
            values = {name: _plain_value(name, value) for name, value in metrics.items()}
            rundir.append_metrics(self.path, {"step": _whole("step", step), **values})

    def stage(self, step: int) -> bool:
        """Hold a copy of the model in memory, in place of the one held before, for `keep` to write.

        A model that is not finite is not staged: the last finite copy stays. Returns whether it was staged.
        """
        if not self._ready() or not is_finite(self._model):
            return False
        self._held.fill(_whole("step", step), self._model)
        return True

    def keep(self) -> None:
        """Write the copy that `stage` holds, if it holds one whose step is not recorded yet."""
        if self._ready() and not self._held.empty and self._held.step not in self._steps:
            # What is taken in exchange holds nothing, or a step that is recorded: it is never written again.
            held, self._held = self._held, self._writer.take()
            self._write(held)

    def flush(self) -> None:
        """Wait until everything recorded so far is on the disk, safe even from a power cut.

        Raises
        ------
        InputError
            If a write failed.
        """
        if self.active and not self._closed:
            self._writer.flush()
            rundir.flush_metrics(self.path)

    def close(self, status: str = "finished", **facts: Any) -> None:
        """Wait for the last write, and note in ``config.json`` how the run ended; a second call does nothing.

        Parameters
        ----------
        status
            "finished", "diverged", "pruned" or "interrupted".
        **facts
            Entries for ``config.json``, such as ``diverged={"step": 12, "what": "loss"}``.

        Raises
        ------
        InputError
            If a write failed; the status then stays "running", unless it can be noted that the run was interrupted.
        """
        check_one_of("status", status, (*ENDED, "interrupted"))
        if not self.active or self._closed:
            return
        try:
            try:
                self.flush()
            finally:
                self._closed = True
                self._writer.close()
        except InputError:
            if status == "interrupted":
                with suppress(InputError):
                    self._note(status, instead_of="running", **facts)
            raise
        else:
            self._note(status, instead_of="running", **facts)
        finally:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(InputError):  # what ended the loop is the news; often it is this very error
                self.close("interrupted")

    def _attach(self, model: nn.Module, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.active = not distributed or torch.distributed.get_rank() == 0
        self._model = unwrap(model)
        self._steps: set[int] = set()
        self._held = Staging()
        self._closed = False
        if self.active:
            self._writer = BackgroundWriter(self._model)
            if left_out := unrecorded(self._model):
                warnings.warn(
                    f"recorder: {', '.join(left_out)}: state other than dense tensors is not recorded; "
                    "a network rebuilt from this run keeps its own",
                    stacklevel=3,
                )

    def _hold(self, held: rundir.Hold) -> None:
        """Keep the run directory to ourselves until we are closed, forgotten or killed."""
        self._release = weakref.finalize(self, held.release)

    def _ready(self) -> bool:
        """Whether this process records; raise if it no longer can."""
        if self.active:
            if self._closed:
                raise InputError(f"{self.path}: the recorder is closed; open the run with Recorder.resume")
            self._writer.check()
        return self.active

    def _write(self, staging: Staging) -> None:
        self._steps.add(staging.step)
        self._writer.write(staging, snapshot_path(self.path, staging.step))

    def _note(self, status: str, *, instead_of: str, **facts: Any) -> None:
        if self._config.get("status") == instead_of:
            self._config |= {**facts, "status": status}
            write_json(self.path / CONFIG, self._config)


def _own_config(model: nn.Module) -> dict[str, Any]:
    """Return the entries of config.json that can be told from the model and the program."""
    layers = synapses(model)
    rules = {plain_name(name): {"name": layer.rule.name, **dataclasses.asdict(layer.rule)} for name, layer in layers}
    first, *others = rules.values()
    rule = first if all(other == first for other in others) else {"name": "mixed", "layers": rules}
    return {
        **environment(),
        "command": shlex.join(sys.argv),
        "status": "running",
        "settings": {},
        "rule": rule,
        "network": None,
    }


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("settings", "rule", "versions"):
        if not isinstance(config.get(key, {}), Mapping):
            raise InputError(f"config: {key!r} must be a mapping, got {config[key]!r}; your own go under 'settings'")
    try:
        check_json(config)
    except (TypeError, ValueError) as error:
        raise InputError(f"config: cannot be kept as JSON ({error})") from None
    return dict(config)


def _two_tensors(batch: Any) -> tuple[Tensor, Tensor]:
    match batch:
        case [Tensor() as inputs, Tensor() as targets] if is_recordable(inputs) and is_recordable(targets):
            return inputs, targets
        case [Tensor() as inputs, Tensor() as targets]:
            given = ", ".join(f"{each.dtype} in {each.layout} layout"[6:] for each in (inputs, targets))
            raise InputError(f"probe_batch: expected dense tensors of numbers, got {given}")
        case [*parts]:
            given = f"({', '.join(type(part).__name__ for part in parts[:4])}{', …' if len(parts) > 4 else ''})"
        case _:
            given = type(batch).__name__
    raise InputError(f"probe_batch: expected (inputs, targets), two tensors, got {given}")


def _whole(argument: str, value: Any) -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise InputError(f"{argument}: expected a whole number of at least 0, got {_short(value)}")
    if number >= 2**63:
        raise InputError(f"{argument}: expected a whole number below 2^63, got {_short(value)}")
    return number


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise InputError(f"{name}: expected a whole number of at most 64 bits to log, got {_short(value)}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{name}: expected a number or text to log, got {_short(value)}")


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:80]
