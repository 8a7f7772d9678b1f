"""Verdicts of studies on the papers' claims, for the tables of docs/claims.md.

``python -m bench claims STUDY_DIR...`` decides each study's claims again from its results, and names the small studies
whose folders are not given.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.evidence.page import fill, table
from wtdiag.diagnostics.claims import CLAIMS, Result, decide
from wtdiag.diagnostics.claims.table import numbers
from wtdiag.diagnostics.claims.verdicts import NOT_TESTED
from wtdiag.diagnostics.comparison.results import STUDY, gather
from wtdiag.probes.records.files import read_json
from wtdiag.studies.file.plan import built_in, read_plan

PAGE = "claims.md"


def run(*folders: str) -> None:
    """Decide the claims, and print and write the tables."""
    sections = [section(Path(folder)) for folder in folders]
    for text in sections:
        print(text, end="\n\n")
    ran = {word for folder in folders for word in str(read_json(Path(folder, STUDY)).get("command")).split()}
    small = [name for name in built_in() if name.startswith("small/") and read_plan(name).claims]
    if missing := [f"`{name}`" for name in small if name not in ran]:
        sections.append(f"Not run with these decision rules: {', '.join(missing)}.")
    fill(PAGE, "claims", "\n\n".join(sections))
    fill(PAGE, "rules", rules_table())


def section(folder: Path) -> str:
    """Return a study's verdicts on the claims, under its title and the command that ran it."""
    about = read_json(folder / STUDY)
    names = about.get("claims")
    results = decide(gather(folder), names if isinstance(names, list) and names else None)
    parts = [f"### {about.get('title') or folder.name}"]
    if isinstance(command := about.get("command"), str) and command:
        parts.append(f"```\n{_anywhere(command)}\n```")
    tested = [each for each in results if each.verdict != NOT_TESTED]
    parts.append(claims_table(tested) if tested else "No claim was tested.")
    if missing := [f"`{each.name}`" for each in results if each.verdict == NOT_TESTED]:
        parts.append(f"Not tested: {', '.join(missing)}.")
    return "\n\n".join(parts)


def _anywhere(command: str) -> str:
    """Return a study's command without the folder that it wrote into, which is of one machine."""
    words = shlex.split(command)
    at = words.index("--out") if "--out" in words else len(words)
    return shlex.join(words[:at] + words[at + 2 :])


def claims_table(results: Sequence[Result]) -> str:
    """Return results as a Markdown table, with the sentence that explains each."""
    rows = [
        (f"`{each.name}`{_cell(each.on)}", _cell(each.claim), *numbers(each), f"**{each.verdict}**", _cell(each.why))
        for each in results
    ]
    return table(["claim", "sentence", "points", "95 % interval", "n", "verdict", "why"], rows)


def rules_table() -> str:
    """Return the decision rule of each claim as a Markdown table."""
    rows = [
        (f"`{each.name}`", each.paper, _cell(each.statistic), _cell(each.decision), _cell(each.reason))
        for each in CLAIMS.values()
    ]
    return table(["claim", "paper", "statistic", "decision", "why this threshold"], rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
