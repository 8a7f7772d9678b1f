"""The processes of one machine that train a run on several devices, started and watched by torch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wtdiag.probes.errors import InputError, first_line
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.launch import stored

BAD_INPUT, LOST, INTERRUPTED = 2, 3, 130
"""Exit codes of a process that could not use its input, that lost another one, and that was interrupted."""
_SECONDS = 0.1
"""The time between two looks at the processes."""


def devices_of(runs: Mapping[Path, Settings]) -> tuple[int, int]:
    """Return the number of devices and of restarts with which runs are trained.

    Raises
    ------
    InputError
        If the runs of one command differ in them.

    Examples
    --------
    >>> devices_of({Path("a"): Settings(devices=2), Path("b"): Settings(rule="kp", devices=2)})
    (2, 0)
    """
    for name in ("devices", "max_restarts"):
        values = {getattr(settings, name) for settings in runs.values()}
        if len(values) > 1:
            raise InputError(f"{name}: the runs of one command need one number, got {sorted(values)}")
    first = next(iter(runs.values()))
    return first.devices, first.max_restarts


def launch(work: Callable[..., int], *arguments: Any, devices: int, max_restarts: int) -> int:
    """Call ``work`` in one process per device; return the exit code of the whole.

    A process that is lost ends the others; all then begin anew, as often as ``max_restarts`` says.

    Parameters
    ----------
    work
        A function that a new process can import. It returns 0, or a code for an end that a restart cannot mend; it
        exits by another code where a restart may help.
    *arguments
        Its arguments.

    Raises
    ------
    InputError
        If the processes cannot be started, or one was lost once too often.
    KeyboardInterrupt
        If the user interrupts.
    """
    # Imported here, because it takes a second.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logs = TemporaryDirectory(prefix="wtdiag-")  # nothing is written there, and the launcher would leave its own behind
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        logs_specs=DefaultLogsSpecs(log_dir=logs.name),
        run_id="wtdiag",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any port that is free
        local_addr="localhost",
        max_restarts=max_restarts,
        monitor_interval=_SECONDS,
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    # The launcher reports by tracebacks, and C++ in the processes in its own form, what is said in one line here.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        codes = elastic_launch(config, work)(*arguments)
        return int(max(codes.values()))
    except ChildFailedError as error:
        lost = _first_lost({rank: failure.exitcode for rank, failure in error.failures.items()})
        if lost is None:  # it has said why
            return BAD_INPUT
        rank, how = lost
        again = f" {max_restarts + 1} times" if max_restarts else ""
        raise InputError(
            f"process {rank} of {devices} {how}{again}, and the others were ended; the run goes on with --resume"
        ) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise InputError(f"ended by {error.sigval.name}; the run goes on with --resume") from None
    except (RuntimeError, OSError) as error:
        raise InputError(f"devices: {devices} processes cannot be started ({first_line(error)})") from None
    finally:
        logs.cleanup()
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _first_lost(codes: Mapping[int, int]) -> tuple[int, str] | None:
    """Return the process that ended the others, and how it ended; None if it has said so itself.

    Of the rest, the launcher ends some by SIGTERM, and some find that another one is lost.
    """
    for rank, code in codes.items():
        if code < 0 and -code != signal.SIGTERM:
            return rank, f"was ended by {signal.Signals(-code).name}"
    if BAD_INPUT in codes.values():
        return None
    for rank, code in codes.items():
        if code not in (LOST, -signal.SIGTERM):
            return rank, f"ended with exit code {code}"
    return min(codes), "was lost"


def is_of(path: Path, settings: Settings) -> bool:
    """Return whether the run in a folder, if there is one, has these settings, except for where it is made."""
    try:
        return not path.exists() or stored(path, settings.as_dict()).rule == settings.rule
    except InputError:
        return False
