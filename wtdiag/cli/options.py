"""Options that several commands have: one for each setting but the rule's, the formats of reports, jobs, schedulers.

With more than fifty options, `GroupedCommand` lists them under headings, which click itself does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from wtdiag.probes.records.config import as_typed, settings_with_role
from wtdiag.trainers.config.settings import Settings

_GROUPS = {  # a heading of the help for each of the roles of settings; a setting is listed under the first that it has
    "Rule": ("method",),
    "Feedback weights": ("feedback",),
    "Network": ("architecture",),
    "Data": ("data", "protocol"),
    "Training": ("training",),
    "Device and files": ("location",),
    "Recording": ("recording",),
}


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings: its own first, then the settings by their roles."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all options, a section for each heading."""
        headings = {name: heading for heading, roles in _GROUPS.items() for name in settings_with_role(*roles)}
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], **{heading: [] for heading in _GROUPS}}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                own = "Rule" if parameter.name in ("rules", "coefficients") else "Options"
                sections[headings.get(parameter.name or "", own)].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


_FORMATS = {"html": ("html",), "pdf": ("pdf",), "both": ("html", "pdf")}

format_option = click.option(
    "--format", "formats", type=click.Choice(list(_FORMATS)), default="both", show_default=True,
    callback=lambda context, option, value: _FORMATS[value],
)  # fmt: skip
"""The formats of a report; the command is given them as a tuple."""
against_option = click.option(
    "--against", type=click.Path(path_type=Path), metavar="RUN_DIR",
    help="Finished run that the accuracy is held against, as a rule one by backprop.",
)  # fmt: skip
"""The reference run of an analysis or a report."""
jobs_option = click.option(
    "--jobs", type=click.IntRange(min=1),
    help="Trainings at a time.  [default: one per worker of a cluster; here one per GPU, or per core]",
)  # fmt: skip
"""The number of trainings that run at a time."""
scheduler_option = click.option(
    "--scheduler", metavar="ADDRESS",
    help="Let a dask cluster do the work, as tcp://host:8786. Its workers need wtdiag and the same file system; anyone "
    "who can reach a dask scheduler can run code on it.",
)  # fmt: skip
"""The address of a dask scheduler."""


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a click command an option for each field of `Settings` but the rule and its coefficients."""
    hints = get_type_hints(Settings)
    for field in reversed(dataclasses.fields(Settings)):
        if field.name in ("rule", "coefficients"):
            continue
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        name = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        if field.default is not None:
            default = ("on" if field.default else "off") if kinds[0] is bool else as_typed(field.default)
            text += f"  [default: {default}]"
        declaration = f"{name}/--no-{name[2:]}" if kinds[0] is bool else name
        kind = click.Choice(field.metadata["choices"]) if field.metadata["choices"] else kinds[0]
        command = click.option(
            declaration, field.name, type=None if kinds[0] is bool else kind, default=None, help=text
        )(command)
    return command


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}
