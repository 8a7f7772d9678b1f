"""The sections of checks that a run's analysis does not make: what its lower layers earned, and how robust it is."""

from __future__ import annotations

from wtdiag.diagnostics.analysis.attacked import ATTACKS, Attempt
from wtdiag.diagnostics.analysis.owed import Arm
from wtdiag.reports.document.content import Figure, Section, Table, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.style import MUTED, Look, fixed, percent, printable, sentence
from wtdiag.reports.run.facts import Facts
from wtdiag.reports.run.sources import Source

_CURVES = {
    "pgd-true": ("PGD, true", Look("#d55e00", "o"), False),
    "fgsm-true": ("FGSM, true", Look("#0072b2", "s"), False),
    "pgd-rule": ("PGD, rule", Look("#d55e00", "v"), True),
    "fgsm-rule": ("FGSM, rule", Look("#0072b2", "^"), True),
    "noise": ("noise", Look(MUTED, "D"), False),
}


def robustness(source: Source, run: Facts) -> Section | None:
    """Show how accuracy falls with the strength of attacks, noise and blur."""
    found = source.attacked
    if found is None:
        return None
    clean, lines, ends = found.of("none"), [], []
    for attack, (name, look, dashed) in _CURVES.items():
        if attempts := found.of(attack):
            points = (*clean, *attempts)
            accuracy, low, high = (
                [100 * getattr(each, part) for each in points] for part in ("accuracy", "low", "high")
            )
            strengths = [each.strength for each in points]
            lines.append(sized.Curve(name, look, strengths, accuracy, dashed, attack, low, high))
            ends.append(f"{name} leaves {percent(points[-1].accuracy)} at strength {points[-1].strength:g}")
    if not lines:
        return None
    caption = (
        f"Accuracy of {source.name} on {found.tested} test examples at step {found.step}, against the strength of "
        "changes to the input, with 95 % intervals. Strength is a share of the range of the pixels: the largest change "
        f"of any of them for FGSM, one signed gradient step, and for PGD, {found.pgd_steps} such steps, and the "
        "standard deviation of the noise. Dashed lines (rule) follow the signal that the feedback sends to the input "
        "in place of the gradient. Where they lie above the solid ones, the feedback hides the gradient, and the "
        "network is only as robust as the solid lines say."
    )
    if len(found.of("pgd-rule")) == 0:
        caption = caption[: caption.index(" Dashed")]
    panel = sized.curves(lines, title="Accuracy (%) under attack", x_label="strength")
    figure = Figure((panel,), caption, sentence("; ".join(ends)), _attempts(found.attempts), name="robustness")
    return Section("Robustness", (figure,))


def _attempts(attempts: tuple[Attempt, ...]) -> Table:
    return Table(
        caption="Accuracy under each perturbation; the strength of the blur is its standard deviation in pixels.",
        columns=("perturbation", "strength", "accuracy", "95 % interval"),
        rows=tuple(
            (ATTACKS[each.attack], f"{each.strength:g}", percent(each.accuracy), _interval(each.low, each.high))
            for each in attempts
        ),
    )


def owed(source: Source, run: Facts) -> Section | None:
    """Show what a last layer makes of the learned, the initial and random lower layers, and what each block earned."""
    found = source.baseline
    if found is None:
        return None
    text = (
        f"A last layer was trained anew on what the lower layers make of the data: {found.epochs} epochs on "
        f"{found.examples} training examples, with {found.seeds} seeds, tested on {found.tested} examples "
        f"(`wtdiag baseline`). What the learned layers do not have over those of the start, they have not earned."
    )
    columns = ("lower layers", "accuracy", "95 % interval", "learned, points above", "95 % interval of these")
    rows = tuple(_row(printable(name), arm, gains=name != "learned") for name, arm in found.arms.items())
    tables = [Table(f"Test accuracy of {source.name} by the state of its lower layers.", columns, rows)]
    if found.blocks:
        caption = (
            "The same where one block alone is not as the run left it. The learned blocks above it are not trained "
            "anew: a loss shows that they rely on this block, no loss that nothing is owed to what it learned."
        )
        rows = tuple(
            _row(f"{printable(block)}: {printable(name)}", arm)
            for block, arms in found.blocks.items()
            for name, arm in arms.items()
        )
        tables.append(Table(caption, ("block", *columns[1:]), rows))
    return Section("What the lower layers earned", (Text(text), *tables))


def _row(name: str, arm: Arm, *, gains: bool = True) -> tuple[str, ...]:
    gain = (f"{100 * arm.gain:+.1f}".replace("-", "−"), _interval(arm.gain_low, arm.gain_high))
    return (name, percent(arm.accuracy), _interval(arm.low, arm.high), *(gain if gains else ("–", "–")))


def _interval(low: float, high: float) -> str:
    return f"{fixed(100 * low)} to {fixed(100 * high)}"
