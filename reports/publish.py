"""Writing of reports: that on one run into its directory, that on several runs beside them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from wtdiag.probes.errors import InputError, check_one_of, check_path
from wtdiag.probes.records.schema import write_aside
from wtdiag.reports.comparison.joint import joint
from wtdiag.reports.document import html, pdf
from wtdiag.reports.document.content import Report
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load
from wtdiag.reports.run.thin import thin

FORMATS = ("html", "pdf")
COMPARISON = "comparison"
"""File name of the report that compares runs, so that a folder can hold it beside a run's own report."""


def write(
    runs: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    formats: Collection[str] = FORMATS,
    paper: str = "a4",
    analysed: Path | None = None,
    against: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write ``report.html`` and ``report.pdf`` on one analysed run, or ``comparison.html`` and ``.pdf`` on several.

    Parameters
    ----------
    runs : sequence of paths
        Analysed run directories.
    out : path, optional
        Existing or new folder for the report; default: the run's own, or the one that holds all the runs.
    formats : collection of {"html", "pdf"}
        The formats to write.
    paper : {"a4", "letter"}
        The paper size of the PDF.
    analysed : path, optional
        Folder of the analysis and findings of a single run; default: the run's own.
    against : path, optional
        Directory of a run that the figures on a single run show beside it.

    Returns
    -------
    list of Path
        The files written, in place of earlier ones.

    Raises
    ------
    InputError
        If there are no runs, a run is not analysed, its files cannot be read, the runs lie in different folders and
        ``out`` is not given, or the report cannot be written.

    Examples
    --------
    >>> write(["runs/none"])
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: runs/none: is not a directory; expected a run directory with config.json
    """
    paths = list(dict.fromkeys(Path(run) for run in runs))
    if not paths:
        raise InputError("runs: none given; expected at least one run directory")
    folder = destination(paths, out)
    sources = [thin(load(path, name, analysed, against)) for path, name in zip(paths, _names(paths), strict=True)]
    report = single(sources[0]) if len(sources) == 1 else joint(sources)
    return publish(report, folder, "report" if len(sources) == 1 else COMPARISON, formats, paper)


def publish(
    report: Report, folder: Path, name: str, formats: Collection[str] = FORMATS, paper: str = "a4"
) -> list[Path]:
    """Render a report in some formats and write the files into a folder, in place of earlier ones of that name.

    The paper size is that of the PDF, "a4" or "letter".

    Raises
    ------
    InputError
        If a format or paper size is not known, or the folder cannot be made.
    """
    for each in formats:
        check_one_of("formats", each, FORMATS)
    check_one_of("paper", paper, pdf.PAPERS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot hold the report ({error.strerror}); expected a folder") from error
    written = []
    for each in formats:
        path = folder / f"{name}.{each}"
        content = html.render(report).encode() if each == "html" else pdf.render(report, paper)
        with write_aside(path) as aside:
            aside.write_bytes(content)
        written.append(path)
    return written


def destination(runs: Sequence[Path], out: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder for a report: ``out`` if it is given, else a run's own, or the one that holds all the runs.

    Raises
    ------
    InputError
        If the runs lie in different folders and ``out`` is not given.
    """
    if out is not None:
        check_path("out", out)
        return Path(out)
    if len(runs) == 1:
        return runs[0]
    parents = {path.resolve().parent for path in runs}
    if len(parents) > 1:
        raise InputError(
            f"out: not given, and the runs lie in {len(parents)} folders; expected a folder for the report"
        )
    return runs[0].parent


def check_writable(folder: Path) -> None:
    """Check, without changing anything, that files can be written into a folder, or that it can be made.

    Raises
    ------
    InputError
        If the folder cannot be written into or made.
    """
    try:
        nearest = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        with TemporaryFile(dir=nearest):  # permissions would not tell of a file system that is read-only
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written into ({error.strerror}); choose another folder with out"
        ) from None


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the runs' folder names, or if two are equal, their paths from the folder that holds them all."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([path.resolve() for path in paths])
    return [path.resolve().relative_to(common).as_posix() for path in paths]
