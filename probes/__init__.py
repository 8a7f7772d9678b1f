"""Measures of a layer, as pure functions on arrays, and the run directory that they read. Torch is never loaded.

- ``measure``: the description of a measure; ``registry``: what a probe is; ``collected``: the table of all probes.
- ``measures``: the probes, one small file per idea. A new probe registers itself when its file is loaded.
- ``kernels``: the arithmetic that they share.
- ``records``: the run directory: its files, and how they are read and written.
- ``errors``: the error for input that cannot be used; ``discovery``: how registries find their entries; ``floor``: the
  size below which errors have no angle.

The public names stand in ``__init__.pyi``; the probes are loaded when one of them is first asked for, so that errors
and run directories can be used without SciPy and Numba.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
