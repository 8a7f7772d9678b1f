"""``wtdiag analyze``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click

from wtdiag.cli.options import against_option, format_option, scheduler_option
from wtdiag.cli.terminal import complain, print_comparison, print_findings, print_sentence, say
from wtdiag.workflow import against_each, enrich, run_directories
from wtdiag.workflow import analyze as measure
from wtdiag.workflow import report as write_report


@click.command("analyze")
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_DIR...")
@click.option("--probe", "probes", multiple=True, help="Also measure this probe, one of the slow ones; repeatable.")
@click.option("--fast", is_flag=True, help="Measure weights, signals and the step-size number only.")
@format_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for everything written about one run, or for the joint report on several.",
)
@against_option
@scheduler_option
def analyze(
    run_dirs: tuple[Path, ...],
    probes: tuple[str, ...],
    fast: bool,
    formats: tuple[str, ...],
    out: Path | None,
    against: Path | None,
    scheduler: str | None,
) -> None:
    """Measure recorded runs, say what is wrong with them, and write their reports.

    Prints how each run came out and its findings, most severe first, then the paths of the files written; for several
    runs also how they compare, last in three sentences. A folder that holds runs stands for all of them. A run's
    accuracy is held against that of the run by backprop with the same settings and seed, if it is among them, or
    against the run that --against names. Snapshots that have not changed since the last analysis are not measured
    again, and what only that one holds is kept.

    \b
    wtdiag analyze runs/ia8
    wtdiag analyze runs/two
    wtdiag analyze runs/ia8 --against runs/bp8
    wtdiag analyze --fast runs/ia8
    wtdiag analyze --probe descent_eigenvalue runs/ia8
    wtdiag analyze --scheduler tcp://head:8786 runs/large
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.cli.console import Screen, tracked
    from wtdiag.diagnostics.analysis.origins import measures_kept
    from wtdiag.diagnostics.comparison.compare import compare as compare_runs
    from wtdiag.diagnostics.comparison.reference import accuracy_of
    from wtdiag.diagnostics.comparison.told import told
    from wtdiag.diagnostics.findings.finding import read_findings
    from wtdiag.diagnostics.findings.headline import headline
    from wtdiag.probes.records.config import rule_name
    from wtdiag.probes.records.schema import ANALYSIS, FINDINGS
    from wtdiag.reports import write
    from wtdiag.reports.publish import check_writable, destination
    from wtdiag.trainers.observe.open_run import open_run

    screen = Screen(stderr=True)
    opened = [open_run(path) for path in run_directories(run_dirs)]  # all of them, before the first is measured
    folder = destination([run.path for run in opened], out)
    places = {run.path: folder if len(opened) == 1 else run.path for run in opened}
    for place in dict.fromkeys([folder, *places.values()]):
        check_writable(place)
    held, findings = against_each(opened, against), {}
    for run in sorted(opened, key=lambda run: rule_name(run.config) != "bp"):  # first those that others stand beside
        steps = partial(tracked, name=str(run.path), screen=screen)
        analysis = measure(run, progress=steps, scheduler=scheduler, also=probes, fast=fast)
        for step, reason in json.loads(analysis.attrs.get("failures", "{}")).items():
            complain(f"step {step} has no signals: {reason}")
        analysis, kept = enrich(analysis, places[run.path])
        if kept := measures_kept(kept):
            named = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
            complain(f"{places[run.path] / ANALYSIS}: kept from the earlier analysis of these snapshots: {named}")
        own = write_report(run, analysis, against=against or held.get(run.path), out=places[run.path], formats=formats)
        if len(opened) > 1:
            say("", lead=str(run.path))
        found = findings[str(run.path)] = read_findings(places[run.path] / FINDINGS)
        print_findings(found, run.path, headline(found, accuracy_of(run, held.get(run.path)), run.config))
        for path in (places[run.path] / ANALYSIS, places[run.path] / FINDINGS, *own):
            say(path)
    if len(opened) > 1:
        with screen.status("joint report"):
            paths = write([run.path for run in opened], out=folder, formats=formats)
        table = compare_runs(opened)
        print_comparison(table)
        for sentence in told(table, findings):
            print_sentence(sentence)
        for path in reversed(paths):  # the page comes last, as what to open
            say(path)
