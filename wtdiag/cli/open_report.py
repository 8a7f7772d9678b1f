"""``wtdiag open``."""

from __future__ import annotations

from pathlib import Path

import click

from wtdiag.cli.terminal import complain, say
from wtdiag.probes.errors import InputError, check_path

_PAGES = "report.html", "study.html", "sweep.html", "transfer.html", "index.html", "comparison.html"


@click.command("open")
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN_DIR")
def open_report(folder: Path) -> None:
    """Open the report of a run, a study, a sweep or a transfer, or the page over a folder of runs, in the browser.

    Prints the path of the page, which is all that it can do on a machine without a browser.

    \b
    wtdiag open runs/ia8
    wtdiag open runs/small/depth-gap
    wtdiag open runs
    """  # noqa: D301  (click wants the character itself)
    check_path("run", folder)
    page = next((folder / name for name in _PAGES if (folder / name).is_file()), None)
    if page is None:
        raise InputError(
            f"run: {folder} holds no report; `wtdiag analyze {folder}` writes one, and `wtdiag index {folder}` a page "
            "over all runs in a folder"
        )
    say(page)
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        complain("no browser could be started; the page opens in any")
