"""Run all benchmarks, or those named: ``python -m bench [steps] [compiled] [snapshots] [probes] [theory] [faults]``."""

from __future__ import annotations

import sys
from importlib import import_module

import torch

BENCHES = {
    "steps": ("bench.steps", "run"),
    "compiled": ("bench.steps", "run_compiled"),
    "snapshots": ("bench.snapshots", "run"),
    "probes": ("bench.probes", "run"),
    "theory": ("bench.theory", "run"),
    "faults": ("bench.faults", "run"),
}

torch.set_num_threads(1)
torch.manual_seed(0)
for name in sys.argv[1:] or BENCHES:
    module, function = BENCHES[name]
    print(f"\n== {name}")
    getattr(import_module(module), function)()
