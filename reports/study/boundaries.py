"""Maps of a sweep: where trials diverged, against where theory predicts that they do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.sentences import counted, listed
from wtdiag.diagnostics.comparison.robustness import reached
from wtdiag.reports.document.content import Block, Figure, Table, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.style import sentence, short
from wtdiag.reports.figures.trial_map import GAIN, STEP, beyond
from wtdiag.reports.study.robustness_section import parameters, space
from wtdiag.reports.study.shared import Methods, words

_TRIED = ("finished", "diverged", "pruned")
_MAPS = 4  # maps in one figure, which then fits on a page with its heading


def maps(search: xr.Dataset, methods: Methods, tag: str) -> Iterator[Block]:
    """Draw the map of each method that has a prediction, and count the trials on either side of the boundary."""
    if (pair := _mapped(search)) is None:
        return
    x, y = pair
    searched = space(search)
    log = bool(searched[x].get("log")), bool(searched[y].get("log"))
    if not (_is_axis(search, "map_x", log[0]) and _is_axis(search, "map_y", log[1])):
        return
    best = float(reached(search, [1.0])["best"])
    relative = search["validation_accuracy"] / (best if np.isfinite(best) else 1.0)
    to = f" relative to {search.attrs['reference']}'s best" if np.isfinite(best) else ""
    rated = search.assign(relative=relative.assign_attrs(long_name=f"accuracy{short(to, 24)}"))
    done = rated["relative"].where(rated["status"] == "finished").values
    least, most = np.nanmin(done, initial=1.0), np.nanmax(done, initial=1.0)
    ends = (float(least) if least < most else 0.0, float(most))
    panels, counts, any_named = [], {}, False
    for name in methods.among(search):
        trials = rated.sel(rule=name)
        drawn = trials["status"].isin(_TRIED) & np.isfinite(trials[x]) & np.isfinite(trials[y])
        named = {each: at for each, at in _stands(search, name).items() if trials[each].dtype.kind not in "fiub"}
        for each, at in named.items():  # words have no middle: the prediction is made for one of them
            drawn &= trials[each].astype(str) == at
            any_named = True
        trials = trials.isel(trial=np.flatnonzero(drawn))
        trials = trials.drop_vars(
            [each for each in (STEP, GAIN) if each in trials and not np.isfinite(trials[each]).any()]
        )
        if trials.sizes["trial"] and (STEP in trials or GAIN in trials):
            title = ", ".join([name, *(f"{words(each)} {at}" for each, at in named.items())])
            panels.append((name, sized.trial_map(trials, x=x, y=y, log=log, title=short(title, 40), ends=ends)))
            counts[name] = _split(trials, beyond(trials, x=x, y=y, log=log))
    if not panels:
        return
    yield Text(_tested("", {end: np.sum([each[end] for each in counts.values()], axis=0) for end in _TRIED}))
    sides = ("rule", *(f"{end}, {side}" for end in _TRIED for side in ("inside", "beyond")))
    for start in range(0, len(panels), _MAPS):
        shown = panels[start : start + _MAPS]
        numbers = {name: [count for end in _TRIED for count in counts[name][end]] for name, _ in shown}
        yield Figure(
            panels=tuple(panel for _, panel in shown),
            caption=f"Trials over {words(x)} and {words(y)}, coloured by validation accuracy{to}. "
            "Lines are boundaries predicted from the network before its first step, with the other parameters in the "
            "middle of their ranges; a boundary without a line does not cross the map. The shaded part is predicted to "
            "be unstable. A pruned trial was stopped because of such a prediction and does not test it."
            + (" Only trials with the levels that the title of the panel names are drawn." if any_named else ""),
            alt=" ".join(_tested(f"{name}: ", counts[name]) for name, _ in shown),
            data=Table(
                "The number of trials inside the predicted boundaries and beyond them.",
                sides,
                tuple((name, *map(str, each)) for name, each in numbers.items()),
            ),
            name=f"stability-map{start // _MAPS or ''}{tag}",
            measures=("validation_accuracy", STEP, GAIN),
        )


def _mapped(search: xr.Dataset) -> tuple[str, str] | None:
    """Return the names of the two parameters of the map, if both are numbers."""
    try:
        x, y = json.loads(search.attrs.get("map", "null"))
    except (TypeError, ValueError):
        return None
    known = [name for name in parameters(search) if search[name].dtype.kind in "fiu"]
    return (x, y) if x in known and y in known else None


def _stands(search: xr.Dataset, rule: str) -> dict[str, str]:
    """Return the values of the parameters that are not on the map, for which its prediction is made."""
    try:
        at = json.loads(search.attrs.get("map_at", "{}"))[rule]
    except (TypeError, ValueError, KeyError):
        return {}
    known = parameters(search)
    return {name: str(value) for name, value in at.items() if name in known} if isinstance(at, dict) else {}


def _is_axis(search: xr.Dataset, name: str, log: bool) -> bool:
    """Return whether the predictions can be interpolated along an axis."""
    if name not in search.coords or search[name].dtype.kind not in "fiu" or search.sizes[name] < 2:
        return False
    values = search[name].values.astype(float)
    return bool(np.isfinite(values).all() and (np.diff(values) > 0).all() and not (log and values[0] <= 0))


def _split(trials: xr.Dataset, outside: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    """Count how trials ended, inside the boundaries and beyond them."""
    status = trials["status"].values.astype(str)
    return {end: (int(((status == end) & ~outside).sum()), int(((status == end) & outside).sum())) for end in _TRIED}


def _tested(head: str, counts: Mapping[str, Sequence[int]]) -> str:
    """State how well the prediction did."""
    finished, diverged, pruned = (tuple(map(int, counts[end])) for end in _TRIED)
    parts = [
        f"{out} of {counted(inside + out, 'trial')} that {end}"
        for end, (inside, out) in (("diverged", diverged), ("finished", finished))
        if inside + out
    ]
    text = f"{listed(parts)} lie beyond a predicted boundary" if parts else "no trial ran to its end"
    if not sum(diverged):
        text = f"no trial diverged; {text}"
    if sum(pruned):
        text += f"; of the pruned trials, {pruned[1]} of {sum(pruned)} do"
    return sentence(text) if not head else f"{head}{text}."
