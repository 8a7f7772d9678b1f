"""What conversion knows: a file for each family of layer types, which discovery finds.

Each class says by `converts` which types it stands for. A layer with one weight is a `Synaptic` with ``forward`` and
``_operation``; a module with several is a `Composite` that lists its ``matrices``.
"""

from wtdiag.probes.discovery import discover

discover(__name__, __path__)
