"""``wtdiag sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wtdiag.cli.options import GroupedCommand, format_option, given, jobs_option, scheduler_option, settings_options
from wtdiag.cli.terminal import called, complain, say

if TYPE_CHECKING:
    import xarray as xr

    from wtdiag.studies.parts.sweep import Sweep


@click.command("sweep", cls=GroupedCommand)
@click.option("--rule", "rules", multiple=True, help="Rule to search for; repeatable. bp, the reference, is added.")
@click.option(
    "--search", multiple=True, required=True, metavar="NAME=RANGE",
    help="Setting or coefficient to search, within log:LOW:HIGH or linear:LOW:HIGH, or among VALUE,VALUE,...; "
    "repeatable. For a rule that lacks it, only the others are searched.",
)  # fmt: skip
@click.option(
    "--coefficient", "-c", "coefficients", multiple=True, metavar="NAME=VALUE",
    help="Coefficient or option that is fixed, for those rules that have it.",
)  # fmt: skip
@click.option("--config", type=click.Path(path_type=Path), help="TOML file, or a run's config.json, with settings.")
@click.option("--trials", type=click.IntRange(min=1), default=30, show_default=True, help="Trainings for each rule.")
@click.option(
    "--sampler", type=click.Choice(["tpe", "random", "grid"]), default="tpe", show_default=True,
    help="How trials are chosen: near those that did well (tree-structured Parzen estimator), at random, or on a grid.",
)  # fmt: skip
@jobs_option
@scheduler_option
@click.option(
    "--storage", metavar="URL",
    help="Optuna storage that several machines share: postgresql://USER@HOST/NAME, or journal:////FOLDER/FILE, a file "
    "that all of them see.  [default: trials.db in --out]",
)  # fmt: skip
@click.option(
    "--prune/--no-prune", default=True,
    help="Stop trainings predicted to be unstable (S > 1) or to have an exploding gain; some would have survived.  "
    "[default: on]",
)  # fmt: skip
@click.option(
    "--map", "plane", nargs=2, metavar="NAME NAME",
    help="Two searched parameters: draw the accuracy over them, and the predicted boundary of stability.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the sweep; the same folder continues it."
)
@format_option
@settings_options
def sweep(
    rules: tuple[str, ...],
    search: tuple[str, ...],
    coefficients: tuple[str, ...],
    config: Path | None,
    trials: int,
    sampler: str,
    jobs: int | None,
    scheduler: str | None,
    storage: str | None,
    prune: bool,
    plane: tuple[str, str] | None,
    out: Path,
    formats: tuple[str, ...],
    **options: Any,
) -> None:
    """Search learning rates and coefficients of several rules, with the same budget for each, and report on it.

    Each training is judged by its accuracy at the last step on examples held out of the training set (--holdout, 0.2),
    never on the test set. Prints how many trials finished, diverged, failed or were pruned, and how many come within
    95 % of backprop's best. Called again with the same --out it continues, also after kill -9 or with more --trials.

    \b
    wtdiag sweep --rule ia --search lr=log:0.005:0.5 --trials 20 --out runs/lr
    wtdiag sweep --rule wm-reg --rule ia --search amp=log:0.001:1 --search decay=log:0.001:1 \\
        --map amp decay --sampler random --trials 60 --epochs 5 --out runs/map
    wtdiag sweep --rule ia --search lr=0.01,0.1 --search momentum=0,0.9 --sampler grid --out runs/grid
    wtdiag sweep ... --storage postgresql://me@host/sweeps --out runs/here  # on each of many machines
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.cli.console import Screen
    from wtdiag.diagnostics.comparison.tables import WIDTH, sweep_table
    from wtdiag.reports.publish import publish
    from wtdiag.reports.study.sweep_page import report
    from wtdiag.studies.engine.storage import shown_url
    from wtdiag.studies.engine.workers import Workers
    from wtdiag.studies.file.methods import divided
    from wtdiag.studies.file.plan import joined
    from wtdiag.studies.file.space import parse_search
    from wtdiag.studies.parts.dataset import write
    from wtdiag.studies.parts.sweep import REFERENCE, Sweep
    from wtdiag.trainers.config.settings import read_config
    from wtdiag.trainers.loop.launch import named_rules, parse_coefficients

    file = read_config(config) if config else {}
    if config is not None and config.suffix == ".json" and not file.get("holdout"):
        file.pop("holdout", None)  # a run records every setting, and a search must not see the test set
    listed = named_rules(file.pop("rule"), str(config)) if "rule" in file else []
    # A name that two rules share does not mean the same in both: coefficients are those of the rules that stand beside.
    theirs = {"coefficients": file.pop("coefficients", {})} if listed else {}
    mine = {"coefficients": parse_coefficients(coefficients)}
    names = list(dict.fromkeys([REFERENCE, *(rules or listed)]))
    settings, methods, left_out = divided(names, joined(file, given(options), mine))
    methods |= {rule: joined(theirs, own) for rule, own in methods.items() if rule in listed}
    for line in left_out:
        complain(line)
    whole = Sweep(
        out,
        methods=methods,
        settings=settings,
        space=parse_search(search),
        sampler=sampler,
        trials=trials,
        seed=settings.get("seed", 0),
        storage=storage,
        prune=prune,
        map=plane,
    )
    with Workers(jobs, scheduler, Screen(stderr=True)) as workers:
        workers.run(*whole.sources())
    with Screen(stderr=True).status("report"):
        results = whole.results().assign_attrs(command=called(storage, shown_url(storage)) if storage else called())
        written = write(results, out)
        reports = publish(report(out), out, "sweep", formats)
    screen = Screen()
    screen.print(sweep_table(results), width=min(WIDTH, screen.width))
    _print_best(whole)
    _tell_of_rest(results)
    for path in (written, *reports):
        say(path)


def _print_best(whole: Sweep) -> None:
    from wtdiag.probes.errors import InputError

    for rule in whole.methods:
        try:
            (best,) = whole.best(rule)
        except InputError as error:
            complain(str(error))
        else:
            values = (
                f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in best.items()
            )
            say(f"best of {rule}: {' '.join(values) or 'nothing was searched'}")


def _tell_of_rest(results: xr.Dataset) -> None:
    """Print which trials failed, and how many are still to come."""
    for rule, trial in zip(*(results["status"].values == "failed").nonzero(), strict=True):
        failed = results.isel(rule=rule, trial=trial)
        complain(f"trial {failed['rule'].item()}-{trial} failed: {failed['reason'].item()}")
    left = int(results["status"].isin(["running", "interrupted", "pending"]).sum())
    if left:
        complain(f"{left} trials are still to come, from processes that share the storage")
