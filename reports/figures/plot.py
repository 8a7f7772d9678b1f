"""The public figures, ``wtdiag.plot``, of which reports consist too.

Each function draws one figure of an analysis that `wtdiag.analyze` returns, and returns its matplotlib axes: those
given as ``ax``, in the style of their figure, or new ones in the style of the reports.

The gid of an artist tells what it shows, and `reports.document.interaction` reads it to make charts interactive. A line
or bar with the gid "layer-3" or "run-3" shows the fourth layer or run ("layer-3:predicted" is a second line of the same
layer); lines with other gids show all layers, and artists without a gid are decoration. An axis with the gid "step",
"layer" or "mode" is the one along which steps, layers or modes run.
"""

from wtdiag.reports.figures.curves import compare
from wtdiag.reports.figures.lines import layer_curves, stability
from wtdiag.reports.figures.maps import heatmap
from wtdiag.reports.figures.profiles import attribution, error_profile, product_law, size_profile
from wtdiag.reports.figures.spectrum import spectrum

__all__ = [
    "attribution",
    "compare",
    "error_profile",
    "heatmap",
    "layer_curves",
    "product_law",
    "size_profile",
    "spectrum",
    "stability",
]
