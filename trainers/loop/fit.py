"""The training loop: one run as an iterator of steps, resumable bitwise from its newest checkpoint."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, starmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wtdiag.probes.errors import InputError
from wtdiag.probes.records import rundir
from wtdiag.probes.records.rundir import ENDED
from wtdiag.probes.records.schema import CHECKPOINT, CONFIG, open_run
from wtdiag.trainers import data
from wtdiag.trainers.config.build import DTYPES, build_network
from wtdiag.trainers.config.device import RandomState, choose_device
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import set_rule, synapses
from wtdiag.trainers.loop.launch import check_modes, status
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.record import checkpoint
from wtdiag.trainers.record.provenance import describe
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.trainers.record.snapshot_plan import SnapshotPlan, Trouble
from wtdiag.trainers.record.staging import snapshot_bytes

STAGE = 10
"""Steps between two copies of the weights held in memory, to be written if trouble strikes after them."""
CHECKPOINT_SECONDS = 20.0
_KEPT = ("step", "loss", "accuracy", "test_accuracy")
"""What of the progress a checkpoint holds."""


@dataclass
class Progress:
    """Where a run stands after a step."""

    step: int
    total: int
    loss: float = math.nan
    accuracy: float = math.nan
    test_accuracy: float = math.nan
    throughput: float = math.nan
    tested_on: str = "test"
    status: str = "running"
    reason: str = ""


class Training:
    """One run: iterate over it to train, a `Progress` after each step.

    Each run keeps its own random state, so several can be stepped in turn without touching each other or the
    caller. Making one checks all input and writes nothing; `begin`, or iterating over it, does.

    Parameters
    ----------
    settings
        What to train and how.
    out
        The run directory.
    dataset
        The loaded data, if another run has it already.
    resume
        Go on from the newest checkpoint in ``out``; without one, start.
    force
        Replace a run that ``out`` holds.

    Raises
    ------
    InputError
        If the settings cannot be met, ``resume`` finds a run that cannot go on, or ``out`` holds a run and neither
        ``resume`` nor ``force`` is given.

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
        check_modes(resume=resume, force=force)
        self.settings, self.out = settings, Path(out)
        self.device = choose_device(settings.device)
        self.dtype = DTYPES[settings.precision]
        whole = dataset or load_data(settings)
        self.dataset = data.hold_out(whole, settings.holdout) if settings.holdout else whole
        shape, classes = self.dataset.shape, self.dataset.classes
        self.epoch = data.batch_count(self.dataset.train, settings.batch_size)
        self.total = round(settings.epochs * self.epoch)
        self.model = build_network(settings, shape=shape, classes=classes).to(self.device)
        self.learner = Learner(self.model, settings, total=self.total, epoch=self.epoch)
        self.plan = SnapshotPlan(
            self.total,
            count=settings.snapshots,
            every=settings.snapshot_every,
            max_gb=settings.max_gb,
            snapshot_bytes=snapshot_bytes(self.model),
        )
        self.trouble = Trouble(self.plan.reserve)
        self.progress = Progress(0, self.total, tested_on="validation" if settings.holdout else "test")
        self._random = RandomState(self.device, settings.seed)
        self._feedback_norm: float | None = None
        self._forward_norm = math.nan
        self._scheduled = any(isinstance(value, str) and ":" in value for value in settings.coefficients.values())
        self._begun = False
        self._resumes = resume and (self.out / CHECKPOINT).exists()
        restarts = resume and (self.out / CONFIG).exists() and not self._resumes
        if resume and status(self.out) in ENDED:
            raise InputError(f"resume: {self.out} is {status(self.out)} already; there is nothing left to do")
        if self._resumes:
            open_run(self.out)
            os.close(rundir.hold(self.out))
            self._take_up(checkpoint.load(self.out))
            return
        if restarts:  # it was killed before its first checkpoint
            rundir.check_restart(self.out)
        self._force = force or restarts
        rundir.check(self.out, force=self._force)

    def begin(self) -> None:
        """Make the run directory, or take it up; nothing if that is done.

        Raises
        ------
        InputError
            If the disk refuses, or another process was faster.
        """
        if self._begun:
            return
        if self._resumes:
            self.recorder = Recorder.resume(self.model, self.out, self.progress.step)
        else:
            config = describe(self.settings, shape=self.dataset.shape, classes=self.dataset.classes)
            self.recorder = Recorder(
                self.model, self.out, config=config, probe_batch=self.probe_batch(), force=self._force
            )
        self._begun = True

    def probe_batch(self) -> tuple[Tensor, Tensor]:
        """Return the run's fixed sample of the training set, inputs and targets, without augmentation."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        indices = torch.randperm(len(self.dataset.train), generator=generator)[: self.settings.probe_size]
        x, y = self.dataset.train.batch(indices, None)
        return x.to(self.dtype), y

    def close(self) -> None:
        """Leave off: a run that has begun and not ended is interrupted.

        Raises
        ------
        InputError
            If a write failed.
        """
        if self._begun:
            self.recorder.close("interrupted")

    def prune(self, reason: str) -> None:
        """End a run that has begun and is not worth going on with; it stays as it is, and is not taken up again.

        Raises
        ------
        InputError
            If a write failed.
        """
        self.progress.reason = reason
        self._snapshot(self.progress.step)
        self._end("pruned", pruned={"step": self.progress.step, "why": reason})

    def __iter__(self) -> Iterator[Progress]:
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
        if not self._resumes:
            if 0 in self.plan:
                self._snapshot(0)
            self.recorder.stage(0)
            self._checkpoint()
        stream = self._batches()
        saved = time.monotonic()
        for step in range(self.progress.step, self.total):
            began = time.monotonic()
            x, y = next(stream)
            diverged = self._step(step, x, y)
            if diverged:
                self._end("diverged", diverged=diverged)
                yield
                return
            self._log(step + 1, len(y), began)
            self._record(step + 1)
            if (step + 1) % STAGE == 0 and step + 1 < self.total:
                self.recorder.stage(step + 1)
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._checkpoint()
                    saved = time.monotonic()
            if step + 1 < self.total:
                yield
        self._end("finished")
        yield

    def _step(self, step: int, x: Tensor, y: Tensor) -> dict[str, Any] | None:
        """Take one step; return what became non-finite, if anything did."""
        settings, progress = self.settings, self.progress
        if self._scheduled:
            set_rule(self.model, self.learner.rule_at(step))
        self.model.train()
        self.learner.begin(step)
        with self._autocast():
            output = self.model(x)
            loss = F.cross_entropy(output, y, label_smoothing=settings.label_smoothing)
        progress.loss = loss.item()
        if not math.isfinite(progress.loss):
            self._snapshot(step)  # the weights themselves are finite, or the step before would have ended the run
            return {"step": step + 1, "what": "loss"}
        loss.backward()  # type: ignore[no-untyped-call]
        self.learner.step(step)
        progress.accuracy = (output.detach().argmax(1) == y).double().mean().item()
        self._forward_norm = _norm(self.learner.weights)
        self._feedback_norm = _norm(self.learner.feedback) if self.learner.feedback else None
        if not math.isfinite(self._forward_norm + (self._feedback_norm or 0.0)):
            self.recorder.keep()
            return {"step": step + 1, "what": self._first_non_finite()}
        progress.step = step + 1
        return None

    def _record(self, step: int) -> None:
        """Snapshot what the plan or trouble asks for."""
        event = self.trouble.update(step, loss=self.progress.loss, feedback_norm=self._feedback_norm)
        if event:
            self.recorder.log(step, event=event)
            self.recorder.keep()
        if step in self.plan or self.trouble.wants(step):
            self._snapshot(step)

    def _log(self, step: int, examples: int, began: float) -> None:
        progress = self.progress
        rate = examples / max(1e-9, time.monotonic() - began)
        progress.throughput = rate if math.isnan(progress.throughput) else 0.9 * progress.throughput + 0.1 * rate
        lr, feedback_lr = self.learner.rates(step - 1)
        metrics = {
            "epoch": step / self.epoch,
            "loss": progress.loss,
            "accuracy": progress.accuracy,
            "lr": lr,
            "feedback_lr": feedback_lr,
            "forward_norm": self._forward_norm,
            "feedback_norm": self._feedback_norm,
            "throughput": round(progress.throughput, 1),
        }
        if step % self.epoch == 0 or step == self.total:
            loss, progress.test_accuracy = self._evaluate()
            tested = {"loss": loss, "accuracy": progress.test_accuracy}
            metrics |= {f"{progress.tested_on}_{name}": value for name, value in tested.items()}
        self.recorder.log(step, **metrics)

    @torch.no_grad()
    def _evaluate(self) -> tuple[float, float]:
        self.model.eval()
        loss, right, count = 0.0, 0, 0
        for batch in data.evaluation_batches(self.dataset.test, max(256, self.settings.batch_size)):
            x, y = self._place(*batch)
            with self._autocast():
                output = self.model(x)
                loss += F.cross_entropy(output, y, reduction="sum").item()
            right += int((output.argmax(1) == y).sum())
            count += len(y)
        return loss / count, right / count

    def _end(self, how: str, **what: Any) -> None:
        # The status comes last: a run killed before it takes its last steps again, to the same end. The weights of a
        # diverged run are not worth a checkpoint.
        self.progress.status = how
        if how == "finished":
            self._snapshot(self.total)
            self._checkpoint()
        elif how == "diverged":
            self.progress.reason = f"{what['diverged']['what']} not finite at step {what['diverged']['step']}"
        self.recorder.close(how, **what)

    def _snapshot(self, step: int) -> None:
        if step not in self.recorder.steps:
            self.recorder.snapshot(step)

    def _checkpoint(self) -> None:
        self.recorder.flush()  # everything up to this step is on disk before a checkpoint says so
        checkpoint.save(
            self.out,
            {
                **{name: getattr(self.progress, name) for name in _KEPT},
                "model": self.model.state_dict(),
                "learner": self.learner.state_dict(),
                "trouble": self.trouble.state_dict(),
                "random": self._random.now(),
                "layers": checkpoint.forward_facts(self.model),
            },
        )

    def _take_up(self, saved: dict[str, Any]) -> None:
        try:
            step, *numbers = (saved[name] for name in _KEPT)
            if type(step) is not int or not 0 <= step <= self.total:
                raise ValueError(f"step: expected a whole number from 0 to {self.total}, got {step!r}")
            for name, number in zip(_KEPT[1:], numbers, strict=True):
                if not isinstance(number, float):
                    raise ValueError(f"{name}: expected a number, got {number!r}")
            self.model.load_state_dict(saved["model"])
            self.learner.load_state_dict(saved["learner"])
            self._check_optimizers()
            self.trouble.load_state_dict(saved["trouble"])
            checkpoint.restore_forward_facts(self.model, saved["layers"])
            # On a machine with more devices than the last one, the others' states are those of the seed.
            self._random.state = [*saved["random"], *self._random.state[len(saved["random"]) :]]
            with self._random.active():
                pass
            self.progress = dataclasses.replace(self.progress, step=step, **dict(zip(_KEPT[1:], numbers, strict=True)))
        except checkpoint.DAMAGE as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"{self.out / CHECKPOINT}: does not fit the run's settings ({reason})") from None

    def _check_optimizers(self) -> None:
        """Require that the state of each parameter is one that a step can use."""
        for name, optimizer in self.learner.optimizers.items():
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if value is not None and value.shape not in (parameter.shape, torch.Size()):
                        raise ValueError(f"{name}: {key} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        first, skip = divmod(self.progress.step, self.epoch)
        for epoch in count(first):
            start = skip if epoch == first else 0
            yield from starmap(
                self._place,
                data.batches(
                    self.dataset.train, self.settings.batch_size, seed=self.settings.seed, epoch=epoch, start=start
                ),
            )

    def _place(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.to(self.device, self.dtype, non_blocking=True), y.to(self.device, non_blocking=True)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _first_non_finite(self) -> str:
        for name, layer in synapses(self.model):
            for kind in ("weight", "feedback"):
                if not math.isfinite(_norm([getattr(layer, kind)])):
                    return f"norm of the {kind} of {name}"
        return "norm of all weights"


def start(runs: Mapping[Path, Settings], *, resume: bool = False, force: bool = False) -> dict[str, Training]:
    """Begin several runs, sharing their data; nothing is written unless all can start.

    Raises
    ------
    InputError
        As `Training` does.
    """
    taken = [str(path) for path in runs if (path / CONFIG).exists()]
    if taken and not (resume or force):
        raise InputError(f"out: {', '.join(taken)} holds a run already; --resume goes on with it, --force replaces it")
    datasets: dict[tuple[object, ...], data.Data] = {}
    trainings: dict[str, Training] = {}
    for path, settings in runs.items():
        key = settings.data, settings.data_dir, settings.image_size
        if key not in datasets:
            datasets[key] = load_data(settings)
        trainings[str(path)] = Training(settings, path, dataset=datasets[key], resume=resume, force=force)
    try:
        for training in trainings.values():  # all folders and configs are there before the first run takes a step
            training.begin()
    except BaseException:
        for training in trainings.values():
            with suppress(InputError):
                training.close()
        raise
    return trainings


def load_data(settings: Settings) -> data.Data:
    """Load the data set of the settings.

    Raises
    ------
    InputError
        If it is unknown, missing or damaged.
    """
    return data.load(
        settings.data, data_dir=settings.data_dir, download=settings.download, image_size=settings.image_size
    )


def _norm(tensors: list[Tensor]) -> float:
    return torch.nn.utils.get_total_norm(tensors).item()
