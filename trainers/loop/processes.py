"""The processes that a launcher has started on this machine and others: how they meet, and on which devices."""

from __future__ import annotations

import os
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from wtdiag.probes.errors import InputError, first_line
from wtdiag.trainers.config.device import cores, gpus, take_share

_JOINING = timedelta(minutes=10)


def launched() -> int:
    """Return the number of processes among which a launcher, such as torchrun, started this one; 0 without one."""
    names = ("RANK", "WORLD_SIZE")
    words = [os.environ.get(name, "") for name in names]
    if not all(words):
        return 0
    for name, word in zip(names, words, strict=True):
        if not word.isdecimal():
            raise InputError(f"{name}: expected a whole number in the environment, got {word!r}")
    return int(words[1])


def check_devices(count: int, device: str) -> None:
    """Require that this machine has ``count`` devices of the kind named.

    Raises
    ------
    InputError
        If it has fewer, or one device is named of which there is only one.
    """
    kind, _, number = device.partition(":")
    if number:
        raise InputError(f"device: {device!r} is one device, and devices is {count}; give cuda, cpu or auto")
    if kind == "cuda" and not gpus():
        raise InputError("device: 'cuda' cannot be used, because this machine has no GPU; try auto or cpu")
    if gpus() and kind in ("auto", "cuda"):
        there, what = gpus(), "GPU"
    else:
        there, what = cores(), "core"
    if count > there:
        raise InputError(f"devices: {count} are asked for, but there {'is' if there == 1 else 'are'} {there} {what}"
                         f"{'' if there == 1 else 's'} for the processes of this machine")  # fmt: skip


def join(device: str) -> None:
    """Join the other processes that the launcher has started, over NCCL on GPUs and Gloo on CPUs.

    Raises
    ------
    InputError
        If they cannot meet, or there are more of them than devices.
    """
    if dist.is_initialized():
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    check_devices(here, device)
    on_gpu = gpus() > 0 and device != "cpu"
    take_share(local, max(1, cores() // here))
    try:
        store, rank, world = next(iter(rendezvous("env://", timeout=_JOINING)))
        # The launcher keeps its store when it begins anew, with the addresses of processes that have ended.
        store = dist.PrefixStore(f"attempt {restarts()}", store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_JOINING)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise InputError(f"devices: the processes cannot meet at {where} ({first_line(error)})") from None


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it is gone, as after SIGKILL, which lets it end no other."""
    if (parent := parent_process()) is not None:
        Thread(target=_end_after, args=[parent], daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def leave() -> None:
    """Leave the other processes, if any were joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first() -> bool:
    """Return whether this process speaks for those that a launcher has started: its rank is 0, or it is alone."""
    return os.environ.get("RANK", "0") == "0"


def is_loss(error: RuntimeError) -> bool:
    """Return whether an error says that another process was lost."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def restarts() -> int:
    """Return how often the launcher has begun anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
