"""Figures that stand alone, and that reports are made of: ``wtdiag.plot``.

Each function draws one figure of an analysis, as `wtdiag.analyze` gives it, and returns its matplotlib axes: those
given as ``ax``, drawn in the style of their figure, or new ones in the style of the reports.

Artists say by their gid what they show, for `reports.document.interaction` makes panels answer the hand: a line or
bar "layer-3" or
"run-3" is of the fourth layer or run ("layer-3:predicted" a second one of it), other gids are lines of all layers;
what has none is decoration. An axis with the gid "step", "layer" or "mode" is the one along which these run.
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
