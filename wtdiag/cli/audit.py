"""``wtdiag audit``."""

from __future__ import annotations

import click

from wtdiag.cli.terminal import print_entry, say
from wtdiag.probes.errors import InputError, with_type


@click.command("audit")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.pass_context
def audit(context: click.Context, function: str) -> None:
    """Say of each layer of a network from anywhere whether its error path sees W, and by which rule it learns.

    FUNCTION takes no arguments and returns the network and a function that runs it on a batch and returns the loss;
    and, as a third, a function that takes one training step, if that is not a step of SGD on all parameters. The
    network's own code is run, so it has to be code that you trust. Exit code 1 if an error path sees W, or if feedback
    that requires a gradient never moves.

    \b
    wtdiag audit my_network:build
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.trainers.conformance.error_audit import audit as examine
    from wtdiag.trainers.conformance.named import load

    build = load("function", function)
    if not callable(build):
        raise InputError(f"function: {function} is {build!r:.80}; expected a function")
    try:
        made = build()
    except Exception as error:  # it is the user's code, which may raise anything
        raise InputError(f"function: {function} failed ({with_type(error)})") from error
    if not isinstance(made, tuple) or len(made) not in (2, 3) or not all(map(callable, made)):
        raise InputError(
            f"function: {function} returned {made!r:.80}; expected a network, its loss and, if need be, its step"
        )
    layers = examine(*made)
    for layer in layers:
        sees = "sees W" if layer.sees_weight else "does not see W"
        path = f"its error path {sees}" if layer.sends else f"its error reaches nothing that learns, and {sees}"
        through = f"B: {', '.join(layer.feedback)}" if layer.feedback else ""
        print_entry(layer.name, f"({layer.kind})  {layer.rule}; {path}", through, layer.note)
    failing = [layer for layer in layers if layer.fails]
    seeing = [layer for layer in layers if layer.sees_weight and layer.sends]
    sending = [layer for layer in layers if layer.sends]
    say(f"{len(seeing)} of {len(sending)} layers that send an error down transport their weights.")
    if stuck := [layer.name for layer in layers if layer.stuck]:
        say(f"The feedback of {', '.join(stuck)} should learn, and never moves.")
    context.exit(1 if failing else 0)
