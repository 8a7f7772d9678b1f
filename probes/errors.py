"""The error for input that cannot be used, which says what could be used instead."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

_LONGEST = 2000
"""Most characters of a message. The choices of every argument fit; a file that was read by mistake does not."""


def shortened(message: str) -> str:
    """Return a message without its middle if it is very long.

    Examples
    --------
    >>> shortened("short"), len(shortened("x" * 10**6))
    ('short', 2000)
    """
    if len(message) <= _LONGEST:
        return message
    half = _LONGEST // 2
    return f"{message[: half - 3]} ... {message[-half + 2 :]}"


class InputError(ValueError):
    """Input that cannot be used; its message is one line naming the argument, the value and the choices.

    The command line prints the message and exits with code 2. The middle of a very long message is left out, because
    the value may come from anyone's file.

    Examples
    --------
    >>> len(str(InputError(f"lr: expected a number, got {[0] * 100000}")))
    2000
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message))


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, or the name of its type if it has no message.

    Examples
    --------
    >>> first_line(ValueError("shapes differ\n  at layer 3")), first_line(MemoryError())
    ('shapes differ', 'MemoryError')
    """
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def one_line(error: BaseException, of: str | os.PathLike[str] = "") -> str:
    r"""Return an error's whole message on one line, or the name of its type if it has no message.

    If the message begins with the path ``of``, it is left out, because the caller names it.

    Examples
    --------
    >>> one_line(ValueError("shapes differ\n  at layer 3")), one_line(MemoryError())
    ('shapes differ at layer 3', 'MemoryError')
    """
    message = " ".join(str(error).split()) or type(error).__name__
    return message.removeprefix(f"{os.fspath(of)}: ") if of else message


def with_type(error: BaseException) -> str:
    """Return on one line what code of others raised: its whole message after its type.

    An `InputError` is told by its message alone. The middle of a very long message is left out.

    Examples
    --------
    >>> with_type(KeyError("fc")), with_type(MemoryError()), with_type(InputError("has 1 dims"))
    ("KeyError: 'fc'", 'MemoryError', 'has 1 dims')
    """
    name, message = type(error).__name__, one_line(error)
    return shortened(message if isinstance(error, InputError) or message == name else f"{name}: {message}")


def check_one_of(argument: str, value: Any, choices: Collection[str]) -> None:
    """Require ``value`` to be one of ``choices``.

    Raises
    ------
    InputError
        If it is not; the message names the argument, the value, a similar choice if there is one, and all choices.

    Examples
    --------
    >>> check_one_of("rule", "fa", ["bp", "fa"])
    >>> check_one_of("rule", "faa", ["bp", "fa"])
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: rule: 'faa' is not known; did you mean 'fa'? Choices: bp, fa
    """
    if value in choices:
        return
    near = get_close_matches(str(value), list(choices), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise InputError(f"{argument}: {value!r} is not known{hint} Choices: {', '.join(choices)}")


def check_path(argument: str, path: str | os.PathLike[str]) -> None:
    """Require a path that the operating system accepts, whether or not it exists.

    Raises
    ------
    InputError
        If it is no path at all, has a NUL character or is too long.

    Examples
    --------
    >>> check_path("out", "x" * 300)
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: out: xxx...xxx: File name too long; expected a path
    >>> check_path("run", 3)
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: run: 3 is of type int; expected a path
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"{argument}: {path!r:.60} is of type {type(path).__name__}; expected a path")
    try:
        os.lstat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            shown = printable(os.fspath(path))
            shown = shown if len(shown) <= 80 else f"{shown[:40]}...{shown[-20:]}"
            raise InputError(f"{argument}: {shown}: {getattr(error, 'strerror', error)}; expected a path") from None


def printable(text: str) -> str:
    r"""Return text with unprintable characters replaced, as they could steer a terminal: a run may come from anyone.

    Examples
    --------
    >>> printable("fc1\x1b[2J")
    'fc1�[2J'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
