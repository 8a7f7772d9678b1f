"""The directive ``{registry}``: a section for each rule, measure, kind of finding, setting or command.

All that it writes stands at the definitions, so that a page holds what ``wtdiag rules ia`` prints, and more. What is
missing on a page is added where the thing is defined.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from wtdiag.cli import cli
from wtdiag.diagnostics.analysis.derive import DERIVED
from wtdiag.diagnostics.analysis.reading import known
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.diagnostics.findings.thresholds import RECORDS, THRESHOLDS
from wtdiag.probes import GIVEN, PROBES
from wtdiag.probes.measure import Measure
from wtdiag.probes.records.config import ROLES, as_typed
from wtdiag.probes.records.optimizers import OPTIMIZERS
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.rules import RULES, Rule

SECTIONS: dict[str, Callable[[], Iterator[str]]] = {}
"""By name of a registry, the function that yields the parts of its page."""


def sections(function: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    """Enter a function in `SECTIONS` under its name."""
    SECTIONS[function.__name__] = function
    return function


class RegistryPage(SphinxDirective):
    """All entries of a registry; ``{registry} rules``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the entries as sections."""
        text = "\n\n".join(SECTIONS[self.arguments[0]]())
        return self.parse_text_to_nodes(text, offset=self.content_offset, allow_section_headings=True)


@sections
def rules() -> Iterator[str]:
    """Yield a section for each rule: its equation, how B comes about, its coefficients and rates, its source."""
    for name, rule in RULES.items():
        recipe = rule.recipe
        own = rule.learned and recipe.optimizer != "forward"
        yield _head("rule", name, f"`{name}`: {rule.title}")
        yield _equation(rule.equation)
        yield _text(rule)
        yield _facts(
            ("feedback", _feedback(rule)),
            (
                "optimiser of B",
                f"{recipe.optimizer}, with a learning rate of {recipe.lr:g}"
                if own
                else "that of W, with the same learning rate"
                if rule.learned
                else "",
            ),
            (
                "learning rate of W",
                f"{recipe.forward_lr:g}, and {recipe.convolutional_lr:g} in convolutional networks with batch norm",
            ),
            ("FLOPs of a step", f"`{rule.flops}` of those of backpropagation" if rule.flops else ""),
            ("source", rule.reference),
        )
        fields = dataclasses.fields(rule)
        if fields:
            rows = [
                (
                    f"`{each.name}`",
                    f"`{as_typed(each.default)}`",
                    _names(each.metadata.get("choices", ())),
                    each.metadata.get("about", ""),
                )
                for each in fields
            ]
            yield _table(("coefficient", "default", "choices", "meaning"), rows)
        yield _code(f"wtdiag train --rule {name} --out runs/{name}")


@sections
def probes() -> Iterator[str]:
    """Yield a section for each measure, in the rooms of probes and then those that are derived from others."""
    rooms: dict[str, list[Measure]] = {}
    for name, measure in known().items():
        room = PROBES[name].room if name in PROBES else "derived"
        rooms.setdefault(room or "elsewhere", []).append(measure)
    for room, measures in rooms.items():
        yield f"## {room.capitalize()}"
        for measure in sorted(measures, key=lambda each: each.name):
            yield from _measure(measure)


def _measure(measure: Measure) -> Iterator[str]:
    name, (low, high) = measure.name, measure.bounds
    yield _head("probe", name, f"`{name}`", level=3)
    yield f"{measure.long_name[0].upper()}{measure.long_name[1:]}."
    yield _equation(measure.equation)
    probe, derived = PROBES.get(name), DERIVED.get(name)
    function = probe.function if probe else derived.function if derived else None
    if function is not None:
        yield _text(function)
    subject = {"signal": "the signals that reach the layer"}.get(measure.subject, f"the {measure.subject} weights")
    yield _facts(
        ("units", "a pure number" if measure.units == "1" else measure.units),
        ("values", f"from {_number(low)} to {_number(high)}, on a {_scale(measure)} scale"),
        ("about", subject),
        ("neutral value", "" if measure.neutral is None else f"{measure.neutral:g}"),
        ("something is wrong above", "" if measure.limit is None else f"{measure.limit:g}"),
        ("predicts", f"[`{measure.predicts}`](#probe-{measure.predicts})" if measure.predicts else ""),
        ("derived from", _links("probe", derived.sources) if derived else ""),
        ("needs", "; ".join(GIVEN[need] for need in sorted(probe.needs)) if probe else ""),
        ("by chance", f"`{name}_null` and `{name}_null_sd` stand beside it" if probe and probe.null else ""),
        ("measured", "only when it is named, with `--probe`" if probe and probe.slow else ""),
        ("source", measure.reference),
    )


@sections
def findings() -> Iterator[str]:
    """Yield a section for each kind of finding: what it means, when it fires, what to do and how often it was right."""
    for name, kind in sorted(KINDS.items()):
        yield _head("finding", name, f"`{name}`")
        yield kind.meaning
        yield _equation(kind.equation)
        yield f"**When it fires.** {_text(kind.detect)}"
        limits = {key: each for key, each in THRESHOLDS.items() if each.kind == name}
        if limits:
            rows = [
                (f"`{key}`", f"{each.value:g}{'' if each.units == '1' else f' {each.units}'}", each.guards)
                for key, each in limits.items()
            ]
            yield _table(("threshold", "value", "what is compared with it"), rows)
        remedies = [remedy if isinstance(remedy, str) else _text(remedy, 1) for remedy in kind.remedies]
        if remedies:
            yield "**What to do**, the best first. What does not fit a run is left out; numbers follow from it:"
            yield "\n".join(f"1. {remedy}" for remedy in remedies)
        record = RECORDS.get(name)
        measured = "It has not been measured how often it is right."
        if record:
            measured = (
                f"In {record.runs} runs whose fault was known it came first in {record.named}, and was right in "
                f"{record.right} of these. {record.planted} of the runs had this fault: see [](findings.md)."
            )
        yield f"**How often it is right.** {measured}"
        yield _facts(
            ("measures", _links("probe", [need for need in kind.needs if need in known()])),
            ("in the same layer it causes", _links("finding", sorted(kind.effects - kind.effects_below))),
            ("below, and in the network, it causes", _links("finding", sorted(kind.effects_below))),
            ("source", kind.reference),
        )


@sections
def settings() -> Iterator[str]:
    """Yield a section for each role, with its settings; a setting of several roles stands under the first."""
    fields = dataclasses.fields(Settings)
    for role, meaning in ROLES.items():
        own = [field for field in fields if field.metadata["roles"][0] == role]
        if not own:
            continue
        yield f"## {role.capitalize()}\n\nThese settings say {meaning}."
        for field in own:
            about = field.metadata
            bounds = [
                f"{words} {about[bound]:g}"
                for bound, words in (("least", "at least"), ("most", "at most"), ("below", "below"))
                if about[bound] is not None
            ]
            default = None if field.default is dataclasses.MISSING else field.default
            yield _head("setting", field.name, f"`{field.name}`", level=3)
            yield about["help"]
            yield _facts(
                ("on the command line", f"`{_option(field.name)}`"),
                ("default", f"`{as_typed(default)}`" if default is not None else ""),
                ("choices", _names(about["choices"])),
                ("values", ", ".join(bounds)),
            )


@sections
def optimizers() -> Iterator[str]:
    """Yield a section for each optimiser that a run may name."""
    yield "(optimisers)=\n## Optimisers"
    measures = {"sgd": ("step_size_number", "relaxation_time"), "adam": ("relative_step", "travel_time")}
    for name, optimizer in OPTIMIZERS.items():
        yield _head("optimizer", name, f"`{name}`: {optimizer.title}", level=3)
        yield optimizer.about
        yield _facts(
            ("weight decay", "apart from the gradient" if optimizer.decoupled else "in the gradient"),
            ("default learning rate", "that of the rule" if optimizer.lr is None else f"{optimizer.lr:g}"),
            ("measures of its steps on B", _links("probe", measures.get(optimizer.theory, ())) or "none"),
        )


@sections
def commands() -> Iterator[str]:
    """Yield a section for each command, with the help that it prints."""
    for name, command in cli.commands.items():
        context = click.Context(command, info_name=f"wtdiag {name}", max_content_width=88)
        yield _head("command", name, f"`wtdiag {name}`")
        yield _code(command.get_help(context))


def _feedback(rule: type[Rule]) -> str:
    """Return how a rule's feedback weights come about."""
    if rule.transports:
        return "is W"
    return "learns" if rule.learned else "follows from W at each step" if rule.tied else "stays fixed"


def _head(sort: str, name: str, title: str, *, level: int = 2) -> str:
    return f"({sort}-{name})=\n{'#' * level} {title}"


def _text(described: Any, paragraphs: int | None = None) -> str:
    """Return the paragraphs of a docstring before its sections, with names in backticks."""
    text = (inspect.getdoc(described) or "").split("\n\nParameters\n")[0].split("\n\nExamples\n")[0]
    text = text.split("\n\nReturns\n")[0].split("\n\nAttributes\n")[0].split("\n\nRaises\n")[0]
    return "\n\n".join(" ".join(each.replace("``", "`").split()) for each in text.split("\n\n")[:paragraphs])


def _equation(equation: str) -> str:
    return f"```text\n{equation}\n```" if equation else ""


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def _facts(*facts: tuple[str, str]) -> str:
    """Return names and texts as a list, without those that have no text; names of pages become links."""
    lines = "\n".join(f"- **{name}**: {text}" for name, text in facts if text)
    return re.sub(r"\bdocs/([a-z-]+\.md)", r"[](\1)", lines)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table without the columns that are empty in all rows."""
    used = [column for column in range(len(head)) if any(row[column] for row in rows)]
    escaped = [[row[column].replace("|", "\\|") for column in used] for row in rows]
    lines = [[head[column] for column in used], ["---"] * len(used), *escaped]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _links(sort: str, names: Iterable[str]) -> str:
    return ", ".join(f"[`{name}`](#{sort}-{name})" for name in names)


def _number(value: float) -> str:
    return f"{'−' if value < 0 else ''}∞" if math.isinf(value) else f"{value:g}".replace("-", "−")


def _scale(measure: Measure) -> str:
    return {"log": "logarithmic"}.get(measure.scale, measure.scale)


def _option(name: str) -> str:
    """Return how a setting is given on the command line, as the command itself declares it."""
    train = cli.commands["train"]
    for parameter in train.params:
        if name in (parameter.name, {"coefficient": "coefficients"}.get(parameter.name or "")):
            return ", ".join([*parameter.opts, *parameter.secondary_opts])
    return f"--{name.replace('_', '-')}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("registry", RegistryPage)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
