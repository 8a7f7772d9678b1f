"""Run all benchmarks of speed, or those named: ``python -m bench [steps] [compiled] [snapshots] [probes] ...``.

Those of speed are ``steps``, ``compiled``, ``loop``, ``data``, ``snapshots``, ``probes``, ``studies`` and ``analysis``;
``data [IMAGES]`` and ``studies [SEEDS]`` can take less.

``theory``, ``guard``, ``adam``, ``volume``, ``estimates``, ``many_runs [RUNS]``, ``shared_analysis [MODEL]``,
``faults``, ``later_faults``, ``sizes``, ``early_warning`` and ``advice`` run only if they are named. They measure how
well predictions, findings and advice hold, how much a rule has to send, and what is needed beyond one machine, and
write their tables into the pages of docs/ (``later_faults`` prints); the last five keep their runs in a FOLDER that
follows. ``unearned [SEED...]`` prints how often the finding of ``wtdiag baseline`` is right. ``claims STUDY_DIR...``
writes the results of studies, ``undertrained [FOLDER]`` those of runs of several lengths, and ``recipes [TRIALS]``
those of searches for settings. ``kills [COUNT]`` and ``full_disk [SIZES]`` stop the commands and write what they leave
into a table of docs/robustness.md.
"""

from __future__ import annotations

import sys
from importlib import import_module

import torch

SPEED = {
    "steps": ("bench.speed.steps", "run"),
    "compiled": ("bench.speed.steps", "run_compiled"),
    "loop": ("bench.speed.loop", "run"),
    "data": ("bench.speed.data", "run"),
    "snapshots": ("bench.speed.snapshots", "run"),
    "probes": ("bench.speed.probes", "run"),
    "studies": ("bench.speed.studies", "run"),
    "analysis": ("bench.speed.analysis", "run"),
}
EVIDENCE = {
    "guard": ("bench.evidence.guarded_runs", "run"),
    "theory": ("bench.evidence.theory", "run"),
    "adam": ("bench.evidence.adam_steps", "run"),
    "volume": ("bench.evidence.volume", "run"),
    "estimates": ("bench.evidence.estimates", "run"),
}
WITH_ARGUMENTS: dict[str, tuple[str, str, type]] = {  # and the type of those that follow the name
    "data": ("bench.speed.data", "run", int),
    "studies": ("bench.speed.studies", "run", int),
    "faults": ("bench.evidence.faults", "run", str),
    "later_faults": ("bench.evidence.faults", "run_later", str),
    "unearned": ("bench.evidence.unearned", "run", int),
    "sizes": ("bench.evidence.faults", "run_sizes", str),
    "early_warning": ("bench.evidence.early_warning", "run", str),
    "advice": ("bench.evidence.followed", "run", str),
    "claims": ("bench.evidence.claims", "run", str),
    "undertrained": ("bench.evidence.undertrained", "run", str),
    "recipes": ("bench.evidence.recipes", "run", int),
    "many_runs": ("bench.evidence.many_runs", "run", int),
    "shared_analysis": ("bench.evidence.shared_analysis", "run", str),
    "kills": ("bench.evidence.kills", "run", int),
    "full_disk": ("bench.evidence.full_disk", "run", int),
}

if __name__ == "__main__":  # the processes that a benchmark starts import this module too
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = sys.argv[1:] or list(SPEED)
    if names[0] in WITH_ARGUMENTS:
        module, function, kind = WITH_ARGUMENTS[names[0]]
        getattr(import_module(module), function)(*map(kind, names[1:]))
        sys.exit()
    for name in names:
        module, function = (SPEED | EVIDENCE)[name]
        print(f"\n== {name}")
        getattr(import_module(module), function)()
