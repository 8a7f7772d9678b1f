"""The recorder of a run directory, which any training loop can use: each snapshot takes one call."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError, check_one_of, check_path, with_type
from wtdiag.probes.records import rundir
from wtdiag.probes.records.entries import checked_config, plain_value, whole
from wtdiag.probes.records.netcdf import Array
from wtdiag.probes.records.rundir import ENDED
from wtdiag.probes.records.schema import CONFIG, open_run, snapshot_path, write_json
from wtdiag.trainers.layers.convert import converted_share, synapses
from wtdiag.trainers.layers.watch import watch
from wtdiag.trainers.observe.inputs import Inputs
from wtdiag.trainers.observe.tensors import to_numpy
from wtdiag.trainers.record.arguments import probe_tensors
from wtdiag.trainers.record.foreign_layers import PairReader, Pairs, Signals, signal_arrays
from wtdiag.trainers.record.provenance import describe_model, describe_pairs
from wtdiag.trainers.record.staging import Staging, is_finite, unrecorded, unwrap
from wtdiag.trainers.record.writer import BackgroundWriter


class Recorder:
    """A recorder of a converted model while any loop trains it.

    The training thread only copies the tensors; a second thread writes them. The model is never changed. In
    distributed training rank 0 records and the others do nothing. Names are those of the user's own module, even
    inside DistributedDataParallel and torch.compile.

    Parameters
    ----------
    model
        A model with layers from `trainers.layers.convert.transport_free`, or one that other code converted.
    path
        The run directory to make.
    pairs
        Where W and B of each layer are, in a model that other code converted; see
        `trainers.record.foreign_layers.PairReader`. Default: the layers from transport_free, or if there are none,
        those of BioTorch.
    signals
        For such a model, a function of it that returns by layer arrays on one fixed batch, under the names of
        `probes.records.arrays.SIGNALS`; it is called at each snapshot. With ``delta``, ``delta_exact`` and ``inputs``
        the rest follows for layers with a matrix.
    config
        Entries for ``config.json`` in addition to those that are added automatically (versions, command, rule): your
        own settings go under ``{"settings": {...}}``.
    probe_batch
        (inputs, targets), the fixed batch on which error signals of layers from transport_free will be measured. The
        inputs are a tensor, or tensors by the names under which the network takes them.
    force
        Whether to replace the run that ``path`` holds.

    Raises
    ------
    InputError
        If ``path`` holds a run and ``force`` is not given, or holds other files; if another process is recording in
        it; if no layer of ``model`` is converted and ``pairs`` give none, or a size in it is not known before the first
        batch; if ``pairs`` name what is not there or differs in shape; if ``probe_batch`` is not a pair of tensors; if
        the directory cannot be written. If a write in the background fails, the next call of any method raises its
        error.

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
    _staged: Staging
    _closed: bool
    _release: Callable[[], object]

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str],
        *,
        pairs: Pairs | None = None,
        signals: Signals | None = None,
        config: Mapping[str, Any] | None = None,
        probe_batch: tuple[Inputs, Tensor] | None = None,
        force: bool = False,
    ) -> None:
        self._attach(model, path, pairs, signals)
        if not self.active:
            return
        reader = self._reader
        described = describe_model(self._model) if reader is None else describe_pairs(reader.rule(self._model))
        self._config = {**described, **checked_config(config or {}), "status": "running"}
        if reader is not None and probe_batch is not None:
            raise InputError("probe_batch: wtdiag cannot run the layers of other code; give their signals= instead")
        batch = None
        if probe_batch is not None:
            inputs, targets = probe_tensors(probe_batch)
            batch = rundir.probe_dataset(
                {name: _array(each) for name, each in inputs.items()}
                if isinstance(inputs, Mapping)
                else _array(inputs),
                _array(targets),
            )
        self._hold(rundir.make(self.path, self._config, force=force))
        if batch is not None:
            rundir.write_probe_batch(self.path, batch)

    @classmethod
    def resume(
        cls,
        model: nn.Module,
        path: str | os.PathLike[str],
        step: int,
        *,
        pairs: Pairs | None = None,
        signals: Signals | None = None,
    ) -> Self:
        """Return a recorder that resumes a run at ``step``, that of its checkpoint, whose weights ``model`` must hold.

        Snapshots and metrics of later steps are removed, because they will be recorded again, and so are the unfinished
        files of a killed writer. The model is staged as of ``step``: if the loop calls `stage` whenever it takes a
        checkpoint, the files end up the same as if it had never been killed.

        Raises
        ------
        InputError
            If ``path`` is not a run directory, if another process is recording in it, or if it cannot be written.
        """
        recorder = cls.__new__(cls)
        recorder._attach(model, path, pairs, signals)
        if recorder.active:
            open_run(path)  # raises if it is not a run
            recorder._hold(rundir.Hold(recorder.path))
            recorder._config = rundir.rewind(recorder.path, whole("step", step))
            recorder._steps = set(open_run(path).steps.tolist())
            recorder._note("running", instead_of="interrupted")
            recorder.stage(step)
        return recorder

    @property
    def model(self) -> nn.Module:
        """The recorded model, without what wraps it."""
        return self._model

    @property
    def reader(self) -> PairReader | None:
        """What reads the layers of a model that other code converted; None for layers from transport_free."""
        return self._reader

    @property
    def is_open(self) -> bool:
        """Whether it still records."""
        return not self._closed

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps that are recorded, including those that are being written, ascending."""
        return tuple(sorted(self._steps))

    def snapshot(self, step: int, **metrics: Any) -> None:
        """Record the model as it is now, and the metrics if any are given.

        Raises
        ------
        InputError
            If ``step`` is not a whole number or is recorded already, or if an earlier write failed.
        """
        if not self._ready():
            return
        step = whole("step", step)
        self._write_waiting()
        if self._waiting:
            raise InputError(f"step: {self._unsized()}; run a batch between two snapshots")
        if step in self._steps:
            raise InputError(f"step: {step} is recorded already in {self.path}; steps must differ")
        if metrics:
            self.log(step, **metrics)
        staging = self._writer.take()
        try:
            staging.fill(step, self._model, self._signals_now())
        except BaseException:
            self._writer.give(staging)
            raise
        self._write(staging)

    def log(self, step: int, **metrics: Any) -> None:
        """Append a line of metrics: numbers (also as tensors of one element), texts, truth values or None.

        Raises
        ------
        InputError
            If a value has another type, or an earlier write failed.
        """
        self.log_lines([{"step": step, **metrics}])

    def log_lines(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append several lines of metrics at once, each with its ``step``.

        Raises
        ------
        InputError
            As `log` does.
        """
        if self._ready():
            plain = [
                {"step": whole("step", line["step"])}
                | {name: plain_value(name, value) for name, value in line.items() if name != "step"}
                for line in lines
            ]
            rundir.append_metrics(self.path, *plain)

    def stage(self, step: int) -> bool:
        """Hold a copy of the model in memory for `keep` to write, and drop the one held before.

        A model that is not finite is not staged, and the last finite copy stays. Returns whether it was staged.
        """
        if not self._ready() or not is_finite(self._model):
            return False
        self._staged.fill(whole("step", step), self._model)
        return True

    def keep(self) -> None:
        """Write the staged copy, if there is one and its step is not recorded yet."""
        if self._ready() and not self._staged.empty and self._staged.step not in self._steps:
            # The buffer taken in exchange is empty or holds a step that is recorded, so it is never written again.
            staged, self._staged = self._staged, self._writer.take()
            self._write(staged)

    def flush(self) -> None:
        """Wait until everything recorded so far is on the disk, where it survives even a power cut.

        Raises
        ------
        InputError
            If a write failed.
        """
        if self.active and not self._closed:
            self._write_waiting()
            self._writer.flush()
            if self._waiting:
                raise InputError(f"{self.path}: {self._unsized()}; the snapshot before the first batch is not written")
            rundir.flush_metrics(self.path)

    def close(self, status: str = "finished", **facts: Any) -> None:
        """Wait for the last write, and write to ``config.json`` how the run ended; a second call does nothing.

        Parameters
        ----------
        status
            "finished", "diverged", "pruned" or "interrupted".
        **facts
            Entries for ``config.json``, such as ``diverged={"step": 12, "what": "loss"}``.

        Raises
        ------
        InputError
            If a write failed. The status then stays "running", or becomes "interrupted" if ``status`` is that.
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
            # Only now is it known which layers the model bypassed.
            known = {"converted": converted_share(self._model)} if self._reader is None else {}
            self._note(status, instead_of="running", **known, **facts)
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
            with suppress(InputError):  # the error that ended the loop matters more, and is often this very error
                self.close("interrupted")

    def _attach(
        self, model: nn.Module, path: str | os.PathLike[str], pairs: Pairs | None, signals: Signals | None
    ) -> None:
        check_path("path", path)
        self.path = Path(path)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.active = not distributed or torch.distributed.get_rank() == 0
        self._model = unwrap(model)
        self._steps: set[int] = set()
        self._signals = signals
        self._reader: PairReader | None = None
        self._closed = False
        self._waiting: list[Staging] = []
        if self.active:
            ours = next(iter(synapses(self._model)), None) is not None
            if pairs is not None or not ours:
                self._reader = PairReader(self._model, pairs)
            elif signals is not None:
                raise InputError(
                    "signals: wtdiag measures those of layers from transport_free; give probe_batch= instead"
                )
            self._staged = Staging(self._reader)
            self._writer = BackgroundWriter(self._model, self._reader)
            watch(self._model)
            if left_out := unrecorded(self._model):
                warnings.warn(
                    f"recorder: {', '.join(left_out)}: state other than dense tensors is not recorded; "
                    "a network rebuilt from this run keeps its own",
                    stacklevel=3,
                )

    def _hold(self, hold: rundir.Hold) -> None:
        """Hold the run directory until this recorder is closed or garbage-collected, or the process is killed."""
        self._release = weakref.finalize(self, hold.release)

    def _signals_now(self) -> dict[str, dict[str, Array]] | None:
        """Return the signals of a model that other code converted, at this moment; None if no function gives them."""
        if self._signals is None or self._reader is None:
            return None
        try:
            given = self._signals(self._model)
        except Exception as error:  # the function is the user's
            raise InputError(f"signals: their function failed ({with_type(error)})") from error
        return signal_arrays(given, *self._reader(self._model))

    def _ready(self) -> bool:
        """Return whether this process records, and raise if it no longer can."""
        if self.active:
            if self._closed:
                raise InputError(f"{self.path}: the recorder is closed; open the run with Recorder.resume")
            self._writer.check()
        return self.active

    def _write(self, staging: Staging) -> None:
        self._steps.add(staging.step)
        self._waiting.append(staging)
        self._write_waiting()

    def _write_waiting(self) -> None:
        """Write what was staged, as soon as a batch has shown the sizes of all layers."""
        if self._waiting and not self._unsized():
            for staging in self._waiting:
                self._writer.write(staging, snapshot_path(self.path, staging.step))
            self._waiting.clear()

    def _unsized(self) -> str:
        layers = [] if self._reader is None else self._reader.unsized(self._model)
        return f"the size of the input of {', '.join(layers)} is not known before the first batch" if layers else ""

    def _note(self, status: str, *, instead_of: str, **facts: Any) -> None:
        if self._config.get("status") == instead_of:
            self._config |= {**facts, "status": status}
            write_json(self.path / CONFIG, self._config)


def _array(tensor: Tensor) -> tuple[Array, str]:
    return to_numpy(tensor.detach().cpu())
