"""Spectra of a layer's forward and feedback weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.chance import chance_band
from wtdiag.diagnostics.analysis.layout import last_measured
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.reports.figures.axes import at_step, canvas, layer_name, log_axis, need, spread
from wtdiag.reports.figures.style import FEEDBACK, INK, MUTED, short


def spectrum(
    analysis: xr.Dataset,
    layer: str | int,
    *,
    steps: Sequence[int] | None = None,
    against: xr.Dataset | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the singular values of one layer's forward and feedback weights through training.

    The last of the steps is a solid line over the band of values that chance explains
    (`chance_band`), if the analysis holds it; the steps before are dotted, and fainter the earlier they are.

    Parameters
    ----------
    analysis : Dataset
        Result of `wtdiag.analyze`, with ``forward_singular_values`` and ``feedback_singular_values``.
    layer : str or int
        Name of the layer, or its index, counted from the input and from 0.
    steps : sequence of int, optional
        Snapshots to draw, ascending; default: four from the first to the last that holds any measure.
    against : Dataset, optional
        Analysis of another run of these layers, whose W at its own last snapshot is drawn dashed.
    ax : Axes, optional
        Axes to draw on; default: a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        If the analysis lacks the singular values, the layer or a step.

    Examples
    --------
    >>> import xarray as xr
    >>> from wtdiag import plot
    >>> analysis = xr.load_dataset("docs/gallery/ia.nc", engine="h5netcdf")
    >>> ax = plot.spectrum(analysis, "fc3")
    """
    need(analysis, "forward_singular_values", "feedback_singular_values", dims=("step", "layer", "mode"))
    names = [str(name) for name in analysis.layer.values]
    if isinstance(layer, str):
        check_one_of("layer", layer, names)
    elif not 0 <= layer < len(names):
        raise InputError(f"layer: {layer} is not known. Choices: {', '.join(names)}, or 0 to {len(names) - 1}")
    index = names.index(layer) if isinstance(layer, str) else layer
    shown = analysis.isel(layer=index)
    every = [int(step) for step in analysis.step.values]
    wanted = [every[i] for i in spread(last_measured(analysis) + 1, 4)] if steps is None else steps
    if not len(wanted):
        raise InputError("steps: none given; expected some of the snapshots")
    for step in wanted:
        check_one_of("steps", str(step), [str(each) for each in every])
    with canvas(ax) as axes:
        for name, sign, color in (("forward", "W", INK), ("feedback", "B", FEEDBACK)):
            for place, step in enumerate(wanted):
                row = shown[f"{name}_singular_values"].isel(step=every.index(step)).values.astype(float)
                row = row[np.isfinite(row)]
                modes = np.arange(1, len(row) + 1)
                if step != wanted[-1]:
                    axes.plot(modes, row, ":", color=color, lw=1.2, alpha=(place + 2) / (len(wanted) + 1))
                    continue
                axes.plot(modes, row, "-", color=color, lw=1.2, label=sign, gid=name)
                null = f"{name}_singular_values_null"
                if null in shown and f"{null}_sd" in shown:
                    at = every.index(step)
                    mean, sd = (_at(shown[each], at)[: len(row)] for each in (null, f"{null}_sd"))
                    axes.fill_between(modes, *chance_band(mean, sd), color=color, alpha=0.2, lw=0)
        if against is not None:
            theirs = need(at_step(against, None), "forward_singular_values", dims=("layer", "mode"))[index].values
            theirs, rule = theirs[np.isfinite(theirs)], str(against.attrs.get("rule", "unknown"))
            name = f"W, {short(rule, 12)}"
            axes.plot(np.arange(1, len(theirs) + 1), theirs, "--", color=MUTED, label=name, gid="reference")
        axes.legend(loc="upper right", handlelength=1.2, borderaxespad=0)
        axes.set_title(layer_name(analysis, index, 26), parse_math=False)
        axes.set_xlabel("mode")
        axes.xaxis.set_gid("mode")
        axes.set_ylabel("singular value")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(0, 1 + max([1, *(np.size(line.get_xdata()) for line in axes.lines)]))
        sides = [shown[f"{side}_singular_values"].values.ravel().astype(float) for side in ("forward", "feedback")]
        sides += [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines if line.get_gid() == "reference"]
        sides = [finite for values in sides if (finite := values[np.isfinite(values)]).size]
        if sides:  # the same scale for all snapshots
            tops = [min(values.max(), 1e300) for values in sides]
            axes.set_ylim(0, 1.05 * max(tops) or 1)
            # Each matrix is seen, however much larger the other one is.
            log_axis(axes.yaxis, np.concatenate(sides), floor=1e-4 * (min(tops) / max(tops) if min(tops) > 0 else 1))
        axes.set_gid(f"layer-{index}")
    return axes


def _at(values: xr.DataArray, snapshot: int) -> NDArray[Any]:
    """Return the values of a variable at a snapshot; it may be without steps."""
    return np.asarray((values.isel(step=snapshot) if "step" in values.dims else values).values, dtype=float)
