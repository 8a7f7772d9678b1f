"""The training loop: one run as an iterator of steps, which can be resumed bitwise from its newest checkpoint."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.bits import to_text
from wtdiag.probes.records.schema import CHECKPOINT, CONFIG
from wtdiag.trainers import data
from wtdiag.trainers.config.build import DTYPES, build_network
from wtdiag.trainers.config.datasets import DataCache, load_data
from wtdiag.trainers.config.device import RandomState, choose_device
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.distributed import Ranks, Share
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.loop.metrics import StepMetrics, UnreadMetrics
from wtdiag.trainers.loop.recompute import recompute_activations
from wtdiag.trainers.loop.resume import ResumableState, TrainingProgress, check_beginning
from wtdiag.trainers.loop.step import Evaluation, Stepper
from wtdiag.trainers.record.provenance import describe
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.trainers.record.snapshot_plan import SnapshotPlan
from wtdiag.trainers.record.spikes import Trouble
from wtdiag.trainers.record.staging import snapshot_bytes

INTERVAL = 10
"""Steps between two readings of the metrics, after each of which the weights are copied in memory.

Between readings no step waits for the device. Trouble and divergence are noticed at a reading, and then the copy that
followed the reading before is written.
"""
CHECKPOINT_SECONDS = 20.0


class Training:
    """One run, which trains as one iterates over it and yields a `TrainingProgress` after each step.

    Each run has its own random state, so several runs can take steps in turn without affecting each other or the
    caller. Creating one checks all input and writes nothing; `begin`, or iterating over it, writes.

    Parameters
    ----------
    settings
        The settings of the run.
    out
        The run directory.
    dataset
        The data set, if it is loaded already.
    resume
        Whether to continue from the newest checkpoint in ``out``; if there is none, the run starts from its beginning.
    force
        Whether to replace a run that ``out`` holds.

    Raises
    ------
    InputError
        If the settings cannot be used, if ``resume`` finds a run that cannot be resumed, or if ``out`` holds a run and
        neither ``resume`` nor ``force`` is given.

    Examples
    --------
    >>> import tempfile
    >>> training = Training(Settings(rule="kp", epochs=1), Path(tempfile.mkdtemp(), "kp"))
    >>> for progress in training:
    ...     pass
    >>> progress.step, progress.status
    (23, 'finished')
    """

    def __init__(
        self,
        settings: Settings,
        out: Path,
        *,
        dataset: data.Data | None = None,
        resume: bool = False,
        force: bool = False,
    ) -> None:
        self.out = Path(out)
        self.ranks = ranks = Ranks.of(settings)
        with ranks.agreement():
            if settings.coefficients.get("centre") == "batch" and not (ranks.is_alone and settings.accumulate == 1):
                raise InputError("centre: the mean over a batch is not known where processes or pieces share it")
            self.device = choose_device(settings.device)
            whole = dataset or load_data(settings)
            held = data.hold_out(whole, settings.holdout) if settings.holdout else whole
            self.dataset = held.to(self.device)
            self.epoch = data.batch_count(self.dataset.train, settings.batch_size)
            self.pretraining, self.total = settings.steps(self.epoch)
            self.model = ranks.synchronised(self._network(settings, resume=resume), settings)
            self.learner = Learner(self.model, settings, total=self.total, epoch=self.epoch, ranks=ranks)
            # The rate is recorded, should defaults change.
            self.settings = settings = dataclasses.replace(settings, lr=self.learner.lr)
            self.plan = SnapshotPlan(
                self.total,
                count=settings.snapshots,
                every=settings.snapshot_every,
                max_gb=settings.max_gb,
                snapshot_bytes=snapshot_bytes(self.model),
            )
        self.stepper = Stepper(self.model, self.learner, settings, self.device, ranks)
        self.progress = TrainingProgress(0, self.total, tested_on="validation" if settings.holdout else "test")
        self._tested: Evaluation | None = None
        self._unread = UnreadMetrics(self.model, self.learner)
        self._examples, self._seconds = 0, 0.0  # of the steps that are not read yet
        self._trouble = Trouble(self.plan.reserve)
        self._random = RandomState(self.device, settings.seed)
        self._state = ResumableState(self.model, self.learner, self._trouble, self._random, ranks)
        self._beginning = ranks.first(lambda: check_beginning(self.out, resume=resume, force=force))
        if self._beginning == "resume":
            self.progress = self._state.take_up(self.out, self.progress)
        self._begun = False

    def _network(self, settings: Settings, *, resume: bool) -> nn.Module:
        begins = not (resume and (self.out / CHECKPOINT).exists())
        shape, classes = self.dataset.shape, self.dataset.classes
        model = build_network(settings, shape=shape, classes=classes, begins=begins).to(self.device)
        if settings.checkpoint_activations:
            recompute_activations(model)
        return model.to(memory_format=torch.channels_last) if settings.channels_last else model

    def begin(self) -> None:
        """Make the run directory, or open it to resume; a second call does nothing.

        Raises
        ------
        InputError
            If the directory cannot be written, or another process has taken it meanwhile.
        """
        if self._begun:
            return
        with self.ranks.agreement():
            self.recorder = self._recorder()
        self._begun = True

    def _recorder(self) -> Recorder:
        if self._beginning == "resume":
            return Recorder.resume(self.model, self.out, self.progress.step)
        shape, classes = self.dataset.shape, self.dataset.classes
        majority = data.majority(self.dataset.test)
        return Recorder(
            self.model,
            self.out,
            config=describe(self.settings, shape=shape, classes=classes, majority=majority),
            probe_batch=self.probe_batch(),
            force=self._beginning == "replace",
        )

    def probe_batch(self) -> tuple[Tensor, Tensor]:
        """Return the run's fixed sample of the training set, inputs and targets, without augmentation."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        indices = torch.randperm(len(self.dataset.train), generator=generator, device="cpu")[: self.settings.probe_size]
        x, y = self.dataset.train.batch(indices, None)
        return x.to(DTYPES[self.settings.precision]), y

    def close(self) -> None:
        """Stop the run: its status becomes "interrupted" if it has begun and not ended.

        Raises
        ------
        InputError
            If a write failed.
        """
        if self._begun:
            try:
                self._read()
            finally:
                self.recorder.close("interrupted")

    def prune(self, reason: str) -> None:
        """End a run that has begun and is not worth continuing; it is kept, but cannot be resumed.

        Raises
        ------
        InputError
            If a write failed.
        """
        if self._read():
            self.progress.reason = reason
            self._snapshot(self.progress.step)
            self._end("pruned", pruned={"step": self.progress.step, "why": reason})

    def __iter__(self) -> Iterator[TrainingProgress]:
        self.begin()
        steps = self._steps()
        try:
            while self.progress.status == "running":
                with self._random.active():
                    next(steps)
                yield self.progress
        finally:
            steps.close()
            self.close()

    def _steps(self) -> Generator[None]:
        if self._beginning != "resume":
            if 0 in self.plan:
                self._snapshot(0)
            self.recorder.stage(0)
            self._checkpoint()
        stream = self._batches()
        saved = time.monotonic()
        for step in range(self.progress.step, self.total):
            began = time.monotonic()
            x, y, share = next(stream)
            self._unread.add(step + 1, self.stepper.take(step, x, y, share))
            self.progress.step = step + 1
            self._examples += share.examples
            self._seconds += time.monotonic() - began
            if self._is_read_at(step + 1):
                if not self._read():
                    yield
                    return
                if step + 1 in self.plan or self._trouble.wants(step + 1):
                    self._snapshot(step + 1)
            if (step + 1) % INTERVAL == 0 and step + 1 < self.total:
                self.recorder.stage(step + 1)
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._checkpoint()
                    saved = time.monotonic()
            if step + 1 < self.total:
                yield
        self._end("finished")
        yield

    def _is_read_at(self, step: int) -> bool:
        """Return whether the metrics are read after this step; snapshots and evaluations need to know that all is well.

        The answer depends on nothing but the run, so that one that is resumed notices trouble at the same steps.
        """
        return (
            step % INTERVAL == 0
            or step % self.epoch == 0
            or step == self.total
            or step in self.plan
            or self._trouble.wants(step)
        )

    def _read(self) -> bool:
        """Read, check and log the steps since the last reading; return False if the run has diverged, and end it."""
        began, progress = time.monotonic(), self.progress
        steps = self._unread.read()
        finite = list(takewhile(lambda each: not each.non_finite, steps))
        rate = self._examples / max(1e-9, self._seconds + time.monotonic() - began)
        self._examples, self._seconds = 0, 0.0
        lines = []
        for metrics in finite:
            progress.loss, progress.accuracy = metrics.loss, metrics.accuracy
            progress.throughput = rate if math.isnan(progress.throughput) else 0.9 * progress.throughput + 0.1 * rate
            lines.append({"step": metrics.step, **self._numbers(metrics)})
            event = self._trouble.update(progress.step, loss=metrics.loss, feedback_norm=metrics.feedback_norm)
            if event:
                lines.append({"step": metrics.step, "event": event})
                self.recorder.keep()
        if lines:
            self.recorder.log_lines(lines)
        if len(finite) < len(steps):
            self._diverge(steps[len(finite)])
        return progress.status == "running"

    def _diverge(self, metrics: StepMetrics) -> None:
        """End a run in which the loss or a weight is no longer finite; its weights are those of the last copy."""
        progress = self.progress
        progress.step, progress.loss = metrics.step - 1, metrics.loss
        if metrics.non_finite != "loss":
            progress.accuracy = metrics.accuracy
        self.recorder.keep()
        self._end("diverged", diverged={"step": metrics.step, "what": metrics.non_finite})

    def _numbers(self, metrics: StepMetrics) -> dict[str, Any]:
        """Return the columns of a step in the metrics."""
        lr, feedback_lr = self.learner.rates(metrics.step - 1)
        of = "noise_" if metrics.step <= self.pretraining else ""  # noise is not what the run is to learn
        numbers = {
            "epoch": metrics.step / self.epoch,
            f"{of}loss": metrics.loss,
            f"{of}accuracy": metrics.accuracy,
            "lr": lr,
            "feedback_lr": feedback_lr,
            "forward_norm": metrics.forward_norm,
            "feedback_norm": metrics.feedback_norm,
            "throughput": round(self.progress.throughput, 1),
        }
        if metrics.feedback_scale is not None:
            numbers["feedback_scale"] = metrics.feedback_scale
        if metrics.step % self.epoch == 0 or metrics.step == self.total:
            tested = self._tested = self._evaluate()
            self.progress.test_accuracy = tested.accuracy
            on = self.progress.tested_on
            numbers |= {f"{on}_loss": tested.loss, f"{on}_accuracy": tested.accuracy}
        return numbers

    def _end(self, how: str, **what: Any) -> None:
        # The status comes last: a run that is killed before takes its last steps again, with the same result. The
        # weights of a diverged run are not worth a checkpoint.
        self.progress.status = how
        if how == "finished":
            self._snapshot(self.total)
            self._checkpoint()
            # If the run was killed after its last checkpoint, nothing has been evaluated since.
            what = {"tested": to_text((self._tested or self._evaluate()).right)}
        elif how == "diverged":
            self.progress.reason = f"{what['diverged']['what']} not finite at step {what['diverged']['step']}"
        self.recorder.close(how, **what)

    def _evaluate(self) -> Evaluation:
        tested, settings = self.dataset.test, self.settings
        if not self.ranks.is_alone:
            tested = data.part(tested, torch.tensor(self.ranks.part_of(len(tested))))
        batches = data.evaluation_batches(
            tested, max(256, settings.batch_size), workers=settings.workers, device=self.device
        )
        return self.stepper.evaluate(batches)

    def _snapshot(self, step: int) -> None:
        if step not in self.recorder.steps:
            self.recorder.snapshot(step)

    def _checkpoint(self) -> None:
        self.recorder.flush()  # everything up to this step is on the disk before the checkpoint is
        if self.ranks.rank == 0:
            self._state.save(self.out, self.progress)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Share]]:
        train, size, first = self.dataset.train, self.settings.batch_size, self.progress.step
        for step in range(first, self.pretraining):
            share = self.ranks.share(min(size, len(train)))
            x, y = data.noise_batch(self.dataset, share.examples, seed=self.settings.seed, number=step % self.epoch)
            yield *self.stepper.place(x[share.part], y[share.part]), share
        first = max(0, first - self.pretraining)  # of the steps on the data themselves
        epoch, start = divmod(first, self.epoch)
        batches = data.batches(
            train,
            size,
            seed=self.settings.seed,
            epoch=epoch,
            start=start,
            steps=self.total - self.pretraining - first,
            part=lambda examples: self.ranks.share(examples).part,
            workers=self.settings.workers,
            device=self.device,
        )
        for step, (x, y) in enumerate(batches, first):
            share = self.ranks.share(min(size, len(train) - step % self.epoch * size))
            yield *self.stepper.place(x, y), share


def _check_free(runs: Mapping[Path, Settings], *, resume: bool, force: bool) -> None:
    taken = [str(path) for path in runs if (path / CONFIG).exists()]
    if taken and not (resume or force):
        raise InputError(f"out: {', '.join(taken)} holds a run already; --resume continues it, --force replaces it")


def start(runs: Mapping[Path, Settings], *, resume: bool = False, force: bool = False) -> dict[str, Training]:
    """Begin several runs, which share their data; nothing is written unless all can start.

    Raises
    ------
    InputError
        As `Training` does.
    """
    Ranks.of(next(iter(runs.values()))).first(lambda: _check_free(runs, resume=resume, force=force))
    load, trainings = DataCache(load_data), {}
    for path, settings in runs.items():
        with Ranks.of(settings).agreement():
            dataset = load(settings)
        trainings[str(path)] = Training(settings, path, dataset=dataset, resume=resume, force=force)
    try:
        for training in trainings.values():  # all folders and configs exist before the first run takes a step
            training.begin()
    except BaseException:
        for training in trainings.values():
            with suppress(InputError):
                training.close()
        raise
    return trainings
