"""A whole study: it tunes, searches, trains all cells, transfers, and decides the claims."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from wtdiag.diagnostics.claims import CLAIMS, Result, decide, write_claims
from wtdiag.diagnostics.comparison.results import DECIDED, RESULTS, STUDY, StudyResults, gather
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.studies.engine.cell import Cell
from wtdiag.studies.engine.workers import Workers
from wtdiag.studies.file.architectures import check_architectures
from wtdiag.studies.file.plan import Level, Plan, SweepPlan, TransferPlan, TunePlan, joined
from wtdiag.studies.parts.dataset import write
from wtdiag.studies.parts.folder import PartFolder
from wtdiag.studies.parts.grid import Grid, tunings
from wtdiag.studies.parts.sweep import Sweep
from wtdiag.studies.parts.transfer import Transfer
from wtdiag.trainers.config.settings import from_mapping
from wtdiag.trainers.record.provenance import environment


class Study:
    """A study file and the folder of its runs, results and report.

    Parameters
    ----------
    out
        New folder, or that of the same study, which is then continued.
    plan
        Result of `studies.file.plan.read_plan`.
    command
        The command that started the study, for the record.

    Attributes
    ----------
    grid : Grid
        The cells of its grids; before tuning, with the learning rates of the file.
    tuning, sweeps, transfers : dict
        The searches before the grids, the sweeps and the transfers, by name or level.

    Raises
    ------
    InputError
        If the plan cannot be used, or ``out`` holds anything but a study.
    """

    def __init__(self, out: Path, plan: Plan, command: str = "") -> None:
        self.out, self.plan, self.command = out, plan, command
        for name in plan.claims:
            check_one_of("claims", name, CLAIMS)
        self._folder = PartFolder(out, "study", STUDY)
        self._folder.record()
        self.grid = Grid(out, plan)
        self.grid.check(but=plan.tune.search if plan.tune else ())
        self._looked = False
        self.tuning = {levels: self._tuning(plan.tune, levels, settings) for levels, settings in tunings(plan).items()}
        self.sweeps = {sweep.name: self._sweep(sweep) for sweep in plan.sweeps}
        self.transfers: dict[str, Transfer] = {}
        for transfer in plan.transfers:
            sweep = self.sweeps[transfer.sweep]
            check_architectures(transfer.to, sweep.methods, sweep.space)

    def run(self, workers: Workers) -> tuple[Result, ...]:
        """Do everything that is not done yet, write the results, and return the verdicts on the claims.

        Raises
        ------
        InputError
            If another process works in the folder, or it holds the runs of another plan.
        """
        self._folder.hold(self._record())
        try:
            try:
                self._train(workers)
            finally:
                self._save()
            claims = decide(self._evidence(), self.plan.claims)
            write_claims(claims, self.out / DECIDED)
            return claims
        finally:
            self._folder.close()

    def cells(self) -> list[Cell]:
        """Return every cell of the study; those of searches and transfers have the settings of the file."""
        cells = list(self.grid.cells.values())
        for name, settings, count in self._typical():
            cells += [Cell(self.out / name, from_mapping(settings, name))] * count
        return cells

    def _train(self, workers: Workers) -> None:
        searches = (*self.tuning.values(), *self.sweeps.values())
        workers.run(*(source for search in searches for source in search.sources()))
        self.grid = Grid(self.out, self.plan, self._tuned())
        self.grid.check()
        self.grid.look()
        self._looked = True
        self.transfers = {transfer.name: self._transfer(transfer) for transfer in self.plan.transfers}
        workers.run(self.grid, *(source for transfer in self.transfers.values() for source in transfer.sources()))

    def _save(self) -> None:
        """Write the results of all parts so far."""
        if self.plan.grids and (self._looked or not (self.out / RESULTS).exists()):
            self.grid.save()  # results of an earlier start are not replaced before they have been read
        parts: tuple[Sweep | Transfer, ...] = (*self.tuning.values(), *self.sweeps.values(), *self.transfers.values())
        for part in parts:
            if part.out.exists():
                write(part.results(), part.out)
            part.close()

    def _evidence(self) -> StudyResults:
        """Return the results of the parts of this plan, without those that an earlier plan left in the folder."""
        results = gather(self.out)
        return StudyResults(
            results.grid,
            {name: sweep for name, sweep in results.sweeps.items() if name in self.sweeps},
            {name: transfer for name, transfer in results.transfers.items() if name in self.transfers},
        )

    def _tuned(self) -> dict[tuple[Level, ...], dict[str, Any]]:
        """Return the best parameters of each method; one whose trials never finished keeps the settings of the file."""
        best = {}
        for levels, search in self.tuning.items():
            for label in search.methods:
                with suppress(InputError):  # none of its trials finished
                    best[label, *levels] = search.best(label)[0]
        return best

    def _tuning(self, tune: TunePlan | None, levels: tuple[Level, ...], settings: dict[str, Any]) -> Sweep:
        assert tune is not None
        per = [factor for factor in self.grid.factors if factor in tune.per]
        name = ",".join(f"{factor}={level}" for factor, level in zip(per, levels, strict=True)) or "all"
        return Sweep(
            self.out / "tuning" / re.sub(r"[^\w.=,+-]", "_", name),
            methods={"bp": self.plan.methods["bp"], **self._compared(levels)},
            settings=joined(settings, tune.settings),
            space=tune.search,
            sampler=tune.sampler,
            trials=tune.trials,
            seed=tune.seed,
            prune=False,
        )

    def _compared(self, levels: tuple[Level, ...]) -> dict[str, dict[str, Any]]:
        """Return the methods that have cells at some levels of the factors that are tuned for separately."""
        keys = {self.grid.tuning_key(key) for key in self.grid.cells}
        labels = map(str, self.grid.factors["rule"])
        return {label: self.plan.methods[label] for label in labels if (label, *levels) in keys}

    def _sweep(self, sweep: SweepPlan) -> Sweep:
        return Sweep(
            self.out / "sweeps" / sweep.name,
            methods={label: self.plan.methods[label] for label in ("bp", *sweep.rules)},
            settings=joined(self.plan.settings, sweep.settings),
            space=sweep.search,
            sampler=sweep.sampler,
            trials=sweep.trials,
            seed=sweep.seed,
            prune=sweep.prune,
            map=sweep.map,
        )

    def _transfer(self, transfer: TransferPlan) -> Transfer:
        return Transfer(
            self.out / "transfers" / transfer.name,
            sweep=self.sweeps[transfer.sweep],
            architectures=transfer.to,
            top=transfer.top,
            seeds=transfer.seeds,
        )

    def _typical(self) -> list[tuple[str, dict[str, Any], int]]:
        """Return name, settings and number of the cells whose settings depend on a search."""
        typical = []
        for sweep in (*self.tuning.values(), *self.sweeps.values()):
            name = sweep.out.relative_to(self.out).as_posix()
            typical += [
                (f"{name}/{label}", joined(sweep.settings, method), sweep.trials)
                for label, method in sweep.methods.items()
            ]
        for transfer in self.plan.transfers:
            sweep = self.sweeps[transfer.sweep]
            source = {key: value for key, value in sweep.settings.items() if key != "holdout"}
            targets: dict[str, dict[str, Any]] = {"source": {}, **transfer.to}
            for target, changes in targets.items():
                for label, method in sweep.methods.items():
                    settings = joined(source, method, changes, {"holdout": 0.0})
                    name = f"transfers/{transfer.name}/{label},{target}"
                    typical.append((name, settings, transfer.top * len(transfer.seeds)))
        return typical

    def _record(self) -> dict[str, Any]:
        plan = self.plan
        return {
            **environment(),
            "command": self.command,
            "title": plan.title,
            "about": plan.about,
            "settings": plan.settings,
            "methods": plan.methods,
            "claims": list(plan.claims),
            "file": plan.text,
        }
