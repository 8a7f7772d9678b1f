"""Panels: each function draws one from an analysis dataset and returns the matplotlib figure.

Artists say by their gid what they show, for `reports.hand` makes panels answer the hand: a line or bar "layer-3" or
"run-3" is of the fourth layer or run ("layer-3:predicted" a second one of it), other gids are lines of all layers;
what has none is decoration. An axis with the gid "step", "layer" or "mode" is the one along which these run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from reports.axes import (
    compact,
    every,
    layer_name,
    layers_axis,
    layers_height,
    log_axis,
    mark,
    measure_title,
    panel,
    plain_numbers,
    spread,
    steps_axis,
)
from reports.facts import meaningful
from reports.sources import Event
from reports.style import ALIGNMENT, BAND, DEPTH, DIVERGED, INK, MISSING, MUTED, RATIO, THIRD, Look, capital

FEEDBACK = "#d9730d"  # colour of B wherever W (ink) and B share a panel
_RATIOS = (0.1, 0.2, 0.5, 0.7, 1.0, 1.4, 2.0, 5.0, 10.0)
_DECADES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
_MOST = {"norm_ratio": 1000.0, "weight_gain": 10.0, "step_size_number": 10.0}  # the largest with its own colour


def heatmap(analysis: xr.Dataset, measure: str, *, events: Sequence[Event] = ()) -> Figure:
    """Step by layer map of a measure, coloured by its distance from what chance gives, or from 1.

    Every snapshot has one column, whatever its distance to the next; missing values are grey. Events are marked
    before the first snapshot that follows them.
    """
    values = analysis[measure].transpose("layer", "step")
    norm, colors = _scale(analysis, measure)

    def draw(axes: Axes) -> None:
        axes.set_facecolor(MISSING)
        finite = np.ma.masked_invalid(values.values.astype(float))
        image = axes.imshow(finite, aspect="auto", cmap=colors, norm=norm)
        axes.grid(visible=False)
        reach = norm.vmax if isinstance(norm, LogNorm) and norm.vmax else 0.0
        beyond = "both" if reach == _MOST.get(measure) else "neither"
        bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=25, extend=beyond)
        bar.outline.set_visible(False)
        if reach:
            bar.ax.yaxis.set_major_locator(FixedLocator(_RATIOS if reach <= 10 else _DECADES))
            bar.ax.yaxis.set_minor_locator(NullLocator())
            plain_numbers(bar.ax.yaxis)
        else:
            # The colours stay those of the whole range, so that reports compare; the key shows what occurs.
            low, high = (0.5, 1.0) if measure == "sign_agreement" else (0.0, 90.0)
            shown = finite.compressed()
            bar.ax.set_ylim(shown.min(initial=low), shown.max(initial=high))
        axes.set_title(capital(measure_title(values)))
        axes.set_xlabel("training step (one column per snapshot)")
        shown_steps = every(len(analysis.step), 6)
        axes.set_xticks(shown_steps, [compact(analysis.step.values[i]) for i in shown_steps])
        axes.xaxis.set_gid("step")
        layers_axis(axes, analysis)
        mark(axes, events, lambda step: float(np.searchsorted(analysis.step.values, step)) - 0.5)

    return panel(draw, height=layers_height(analysis))


def layer_curves(
    analysis: xr.Dataset,
    measure: str,
    *,
    log: bool = False,
    chance: bool = False,
    predicted: str | None = None,
    limit: float | None = None,
    events: Sequence[Event] = (),
) -> Figure:
    """Curves of a measure over training, one per layer, coloured by depth.

    Layers in which the measure means nothing are dotted. With ``chance``, a band spans two standard
    deviations around the null expectation of every layer. ``predicted`` names the variable that holds where
    theory sees each curve come to rest (dashed); what lies above ``limit`` is shaded.
    """
    values = analysis[measure].transpose("layer", "step")
    steps = analysis.step.values
    solid = meaningful(analysis, measure)
    key = BoundaryNorm(np.arange(len(solid) + 1) - 0.5, 256) if len(solid) > 1 else Normalize(-0.5, 0.5)

    def draw(axes: Axes) -> None:
        band = null_band(analysis, measure) if chance else None
        if band is not None:
            axes.fill_between(steps, *band, color=BAND, lw=0, zorder=0.5, label="chance ± 2 sd")
            axes.legend(loc="lower left", bbox_to_anchor=(0, 0.99), borderaxespad=0, handlelength=1.2)
        width = 1.2 if len(solid) < 30 else 0.7
        if predicted:
            for layer, curve in enumerate(analysis[predicted].transpose("layer", "step").values):
                if solid[layer]:
                    color, gid = DEPTH(key(layer)), f"layer-{layer}:predicted"
                    axes.plot(steps, curve, "--", color=color, lw=0.7, alpha=0.7, gid=gid)
        for layer, curve in enumerate(values.values):
            style = "-" if solid[layer] else ":"
            (line,) = axes.plot(steps, curve, style, color=DEPTH(key(layer)), lw=width)
            line.set_marker("o" if len(steps) == 1 else "")
            line.set_gid(f"layer-{layer}")
        bar = axes.figure.colorbar(ScalarMappable(key, DEPTH), ax=axes, pad=0.02, aspect=25)
        bar.outline.set_visible(False)
        shown = spread(len(solid), 8)
        bar.set_ticks(shown, labels=[layer_name(analysis, i, 12) for i in shown])
        bar.ax.tick_params(length=0)
        bar.ax.minorticks_off()
        bar.ax.invert_yaxis()
        axes.set_title(capital(measure_title(values)), pad=16 if band is not None else 6)
        axes.set_xlabel("training step")
        steps_axis(axes, steps)
        if log:
            reach = [] if limit is None else [limit / 30, limit]
            log_axis(axes.yaxis, np.append(values.values, reach))
        if limit is not None:
            low, high = axes.get_ylim()
            high = min(max(high, 2 * limit), 1e3 * limit)  # one exploded layer must not hide the others
            axes.set_ylim(low, high)
            axes.axhspan(limit, high, color=DIVERGED, alpha=0.1, lw=0)
            axes.axhline(limit, color=DIVERGED, lw=1)
        mark(axes, events)

    return panel(draw, height=2.15)


def stability(analysis: xr.Dataset, *, events: Sequence[Event] = ()) -> Figure:
    """Step-size number of every layer over training; above 1, where it is shaded, feedback is unstable."""
    return layer_curves(analysis, "step_size_number", log=True, limit=1.0, events=events)


def null_band(analysis: xr.Dataset, measure: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Lowest and highest value at each step that chance explains in some layer, if the analysis says so."""
    if f"{measure}_null" not in analysis or f"{measure}_null_sd" not in analysis:
        return None
    null = analysis[f"{measure}_null"].broadcast_like(analysis[measure])
    reach = 2 * analysis[f"{measure}_null_sd"].broadcast_like(analysis[measure])
    if measure.endswith("norm_ratio"):  # its spread is that of its logarithm
        low, high = null * np.exp(-reach), null * np.exp(reach)
    else:
        low, high = null - reach, null + reach
    return low.min("layer").values, high.max("layer").values


def spectrum(analysis: xr.Dataset, layer: int, *, snapshots: Sequence[int]) -> Figure:
    """Singular values of one layer's forward and feedback weights at the given snapshots.

    The last is drawn solid, over what chance gives (the null expectation ± two standard deviations), if the
    analysis holds that.
    """
    shown = analysis.isel(layer=layer)

    def draw(axes: Axes) -> None:
        everything = []
        for name, sign, color in (("forward", "W", INK), ("feedback", "B", FEEDBACK)):
            for at in snapshots:
                row = shown[f"{name}_singular_values"].isel(step=at).values.astype(float)
                row = row[np.isfinite(row)]
                last = at == snapshots[-1]
                modes = np.arange(1, len(row) + 1)
                gid = name if last else None
                axes.plot(modes, row, "-" if last else ":", color=color, lw=1.2, label=sign if last else None, gid=gid)
                everything.append(row)
                null = f"{name}_singular_values_null"
                if last and null in shown and f"{null}_sd" in shown:
                    mean, sd = (_at(shown[each], at)[: len(row)] for each in (null, f"{null}_sd"))
                    axes.fill_between(modes, mean - 2 * sd, mean + 2 * sd, color=color, alpha=0.2, lw=0)
            over_time = np.asarray(shown[f"{name}_singular_values"].values, dtype=float).ravel()
            everything.append(over_time[np.isfinite(over_time)])  # one scale for all snapshots
        axes.legend(loc="upper right", handlelength=1.2, borderaxespad=0)
        axes.set_title(layer_name(analysis, layer, 26))
        axes.set_xlabel("mode")
        axes.xaxis.set_gid("mode")
        axes.set_ylabel("singular value")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(0, 1 + max([1, *(np.size(line.get_xdata()) for line in axes.lines)]))
        values = np.concatenate(everything)
        if values.size:
            axes.set_ylim(0, 1.05 * min(values.max(), 1e300) or 1)
        log_axis(axes.yaxis, values, floor=1e-4)
        axes.set_gid(f"layer-{layer}")

    return panel(draw, width=THIRD, height=1.75)


def error_profile(analysis: xr.Dataset, *, snapshot: int) -> Figure:
    """Angles of the error that each layer sends down at one snapshot: local, inherited, total."""
    parts = (
        ("error_angle_local", "local", FEEDBACK, "o"),
        ("error_angle_inherited", "inherited", "#2a80c9", "s"),
        ("error_angle_total", "total", INK, "D"),
    )
    return _profile(analysis, snapshot, parts, "Error sent down: angle to the exact one (°)")


def product_law(analysis: xr.Dataset, *, snapshot: int) -> Figure:
    """Angle of the error that trains each layer at one snapshot: measured, and from the local angles above it."""
    parts = (
        ("error_angle", "measured", INK, "D"),
        ("error_angle_product", "product law", FEEDBACK, "o"),
    )
    return _profile(analysis, snapshot, parts, "Error that trains: angle to the exact one (°)")


def _profile(analysis: xr.Dataset, snapshot: int, parts: Sequence[tuple[str, str, str, str]], title: str) -> Figure:
    """Draw angles by layer; parts are a measure, its label, colour and marker."""
    now = analysis.isel(step=snapshot)

    def draw(axes: Axes) -> None:
        rows = np.arange(len(now.layer))
        axes.axvline(90, color=BAND, lw=3, zorder=0.5)
        everything: list[float] = []
        for measure, label, color, marker in parts:
            if measure in now:
                everything += analysis[measure].values[np.isfinite(analysis[measure].values)].tolist()
                size = 3.5 if len(rows) < 40 else 1.5
                values = now[measure].values
                axes.plot(values, rows, color=color, marker=marker, ms=size, lw=1, label=label, gid=measure)
        axes.set_xlim(-2, 5 + max([90.0, *everything]))  # one scale for all snapshots
        axes.xaxis.set_major_locator(MaxNLocator(steps=[3, 4.5, 9], nbins=6))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        layers_axis(axes, analysis)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 0.99), ncols=3, borderaxespad=0.1)
        axes.set_title(title, pad=16)

    return panel(draw, height=layers_height(analysis))


def attribution(analysis: xr.Dataset, measure: str, *, snapshot: int) -> Figure:
    """Bars of what the feedback of each layer costs at one snapshot."""
    values = analysis[measure].isel(step=snapshot)

    def draw(axes: Axes) -> None:
        bars = axes.barh(np.arange(len(values)), values.values, color=FEEDBACK, height=0.7)
        for layer, bar in enumerate(bars):
            bar.set_gid(f"layer-{layer}")
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set_title(capital(measure_title(values)))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(values) - 0.5, -0.5)
        layers_axis(axes, analysis)

    return panel(draw, height=layers_height(analysis))


def _at(values: xr.DataArray, snapshot: int) -> NDArray[Any]:
    """Values at a snapshot, of a variable that may be the same at all."""
    return np.asarray((values.isel(step=snapshot) if "step" in values.dims else values).values, dtype=float)


class Curve(NamedTuple):
    """A line of a panel: its name in the key, look, points, gid and band; several may share a name."""

    name: str
    look: Look
    x: ArrayLike
    y: ArrayLike
    dashed: bool = False
    gid: str | None = None
    low: ArrayLike | None = None
    high: ArrayLike | None = None


def curves(
    lines: Sequence[Curve],
    *,
    title: str,
    x_label: str = "training step",
    log: bool = False,
    events: Sequence[Event] = (),
) -> Figure:
    """Named curves in one panel, its key below."""

    def draw(axes: Axes) -> None:
        named: set[str] = set()
        for line in lines:
            x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
            axes.plot(
                x, y, "--" if line.dashed else "-", color=line.look.color, marker=line.look.marker,
                markevery=max(1, len(x) // 8), ms=0 if len(x) > 60 and line.dashed else 3.5,
                label=line.name if line.name not in named else None, gid=line.gid,
            )  # fmt: skip
            named.add(line.name)
            if line.low is not None and line.high is not None:
                low, high = (np.asarray(edge, dtype=float) for edge in (line.low, line.high))
                axes.fill_between(x, low, high, color=line.look.color, alpha=0.18, lw=0)
        mark(axes, events)
        if len(named) > 1:
            columns = 4 if max(map(len, named)) < 10 else 3
            axes.figure.legend(loc="outside lower left", ncols=columns, columnspacing=1.2, handlelength=1.8)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.xaxis.set_gid("step" if x_label == "training step" else None)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
        if log:
            log_axis(axes.yaxis, np.concatenate([np.ravel(line.y) for line in lines]))

    keys = len({line.name for line in lines})
    return panel(draw, height=2.2 + 0.16 * -(-keys // 4))


class _RatioNorm(LogNorm):
    """Logarithmic; what is not positive counts as smallest."""

    def __call__(self, value: Any, clip: bool | None = None) -> Any:
        found = np.ma.asarray(value)
        smallest = self.vmin or 1.0
        return super().__call__(np.ma.masked_array(np.where(found.data > 0, found.data, smallest), found.mask), clip)


def _scale(analysis: xr.Dataset, measure: str) -> tuple[Normalize, Colormap]:
    if measure in _MOST:
        values = analysis[measure].values
        values = values[np.isfinite(values) & (values > 0)]
        # Symmetric about 1 and at least a factor 2; one exploded layer must not hide the others.
        reach = float(np.exp(min(np.abs(np.log(values)).max(initial=np.log(2)), np.log(_MOST[measure]))))
        colors = ALIGNMENT if measure == "step_size_number" else RATIO
        return _RatioNorm(1 / reach, reach), colors
    if measure == "sign_agreement":
        return Normalize(0, 1), ALIGNMENT.reversed()
    return Normalize(0, 180), ALIGNMENT
