"""From snapshots to the labelled dataset."""

import json
import tracemalloc

import h5py
import numpy as np
import pytest
import xarray as xr

from wtdiag.diagnostics.analysis import survey
from wtdiag.diagnostics.analysis.analyze import analyze, read_analysis, write_analysis
from wtdiag.diagnostics.analysis.costs import COSTS
from wtdiag.probes import PROBES, Quantities
from wtdiag.probes.errors import InputError
from wtdiag.probes.measures.spectra import singular_values as spectra
from wtdiag.probes.measures.spectra import subspaces
from wtdiag.probes.records.schema import LayerArrays, Run, Snapshot, open_run, snapshot_path, write_json, write_snapshot

CONFIG = {
    "status": "diverged",
    "rule": {"name": "ia", "amp": 0.04},
    "settings": {"model": "mlp", "depth": 2},
}


def weights(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def layers_at(step):
    """Four layers of four kinds, stored in another order than they run."""
    return {
        "head": LayerArrays(weights(step, 10, 12), weights(step + 1, 10, 12), "Linear", 3),
        "stem": LayerArrays(weights(step + 2, 6, 3, 2, 2), weights(9, 6, 3, 2, 2), "Conv2d", 0, True, False),
        "grouped": LayerArrays(weights(step + 3, 6, 2, 3), weights(8, 6, 2, 3), "Conv1d", 1, groups=3),
        "hidden": LayerArrays(weights(step + 4, 10, 6), weights(7, 10, 6), "Linear", 2, True, direct=True),
    }


def record(path, steps, layers=layers_at, config=CONFIG) -> Run:
    write_json(path / "config.json", config)
    (path / "snapshots").mkdir()
    for step in steps:
        write_snapshot(snapshot_path(path, step), Snapshot(step, layers(step)))
    return open_run(path)


def signals(step):
    names = ("delta", "delta_exact", "sent", "sent_local", "sent_exact")
    head = {name: weights(step + i, 8, 10) for i, name in enumerate(names)}
    stem = {"delta": weights(step, 8, 6, 4, 4), "delta_exact": weights(step + 1, 8, 6, 4, 4)}
    return {"head": head, "stem": stem}


def test_lays_out_every_probe(tmp_path):
    run = record(tmp_path, [0, 10, 200])
    analysis = analyze(run, signals=signals)
    assert analysis.layer.values.tolist() == ["stem", "grouped", "hidden", "head"]
    assert analysis.kind.values.tolist() == ["Conv2d", "Conv1d", "Linear", "Linear"]
    assert analysis.carries_error.values.tolist() == [False, True, True, True]
    assert analysis.direct.values.tolist() == [False, False, True, False]
    assert analysis.fixed.values.tolist() == [True, False, True, False]
    told = analyze(run, ["weight_angle"], fixed=lambda layer: layer == "grouped")
    assert told.fixed.values.tolist() == [True, True, True, False]
    assert analysis.step.values.tolist() == [0, 10, 200]
    assert analysis.sizes["mode"] == 10
    measured = {name: probe for name, probe in PROBES.items() if not probe.slow}
    derived = {"gain_elasticity", "log_norm_ratio_sum", "error_angle_product", "step_size_growth"}
    assert {name for name in analysis if not name.endswith(("_null", "_null_sd"))} == set(measured) | derived
    for name, probe in measured.items():
        variable = analysis[name]
        assert variable.dims == ("step", "layer", *probe.dims)
        assert variable.attrs == probe.attrs
        assert {"units", "long_name", "equation", "reference", "subject", "scale", "homogeneity"} <= set(probe.attrs)
        assert (f"{name}_null" in analysis) == (f"{name}_null_sd" in analysis) == (probe.null is not None)
    assert analysis.attrs["run"] == tmp_path.name
    assert analysis.attrs["rule"] == "ia"
    assert json.loads(analysis.attrs["rule_coefficients"]) == {"amp": 0.04}
    assert analysis.attrs["status"] == "diverged"
    assert json.loads(analysis.attrs["settings"]) == CONFIG["settings"]


def check_cell(cell, expected):
    """A cell holds what is expected, and NaN for the modes that other layers have more of."""
    cell, expected = np.atleast_1d(cell), np.atleast_1d(expected)
    np.testing.assert_allclose(cell[: expected.size], expected, rtol=1e-12)
    assert np.isnan(cell[expected.size :]).all()


@pytest.mark.parametrize("step", [0, 10])
@pytest.mark.parametrize("name", ["head", "stem", "grouped", "hidden"])
def test_each_number_is_the_probe_of_its_layer_and_step(tmp_path, name, step):
    analysis = analyze(record(tmp_path, [0, 10]), PROBES, signals=signals).sel(step=step, layer=name)
    layer, errors = layers_at(step)[name], signals(step).get(name, {})
    given = {"forward": layer.forward, "feedback": layer.feedback, **errors}
    about = {"groups": layer.groups, "direct": layer.direct, "units": 1 if "Conv" in layer.kind else -1}
    quantities = Quantities(**given, **about)
    for probe in PROBES.values():
        measured = probe.needs <= given.keys()
        check_cell(analysis[probe.name], quantities[probe.name] if measured else np.nan)
        if probe.null:
            mean, sd = quantities.null(probe.name) if measured else (np.nan, np.nan)
            check_cell(analysis[f"{probe.name}_null"], mean)
            check_cell(analysis[f"{probe.name}_null_sd"], sd)


def test_direct_feedback_is_not_compared(tmp_path):
    """Even where it happens to have the forward weights' shape."""
    hidden = analyze(record(tmp_path, [0])).sel(layer="hidden")
    assert np.isnan(hidden.weight_angle).all()
    assert np.isnan(hidden.sign_agreement).all()
    assert hidden.feedback_norm.notnull().all()


def test_choice_of_probes(tmp_path):
    run = record(tmp_path, [0])
    assert set(analyze(run, ["norm_ratio"])) == {"norm_ratio", "norm_ratio_null", "norm_ratio_null_sd"}
    assert not any("error" in str(name) for name in analyze(run))
    with pytest.raises(InputError, match=r"probe: 'weight_angel' is not known; did you mean 'weight_angle'"):
        analyze(run, ["weight_angel"])
    with pytest.raises(InputError, match=r"probe: 'error_angle' needs delta, delta_exact, from the network"):
        analyze(run, ["error_angle"])


def test_without_transport_of_feedback(tmp_path):
    """Under backprop the feedback is the forward weight."""
    run = record(tmp_path, [0], lambda _: {"fc": LayerArrays(weights(0, 5, 5), None, "Linear", 0)}, {})
    analysis = analyze(run)
    assert analysis.weight_angle.item() == 0
    assert analysis.sign_agreement.item() == analysis.norm_ratio.item() == 1
    assert analysis.attrs["rule"] == analysis.attrs["status"] == "unknown"


def test_a_run_that_diverged(tmp_path):
    def layers(step):
        scale = {0: 1, 1: 1e30, 2: np.inf, 3: np.nan}[step]
        return {"fc": LayerArrays(weights(0, 5, 4), weights(1, 5, 4) * np.float32(scale), "Linear", 0)}

    analysis = analyze(record(tmp_path, range(4), layers))
    assert analysis.weight_angle.notnull().values[:, 0].tolist() == [True, True, False, False]
    np.testing.assert_allclose(analysis.feedback_norm[1], analysis.feedback_norm[0] * 1e30, rtol=1e-6)
    assert analysis.forward_norm.notnull().all()


def test_dtype_may_change(tmp_path):
    def layers(step):
        dtype = np.float64 if step else np.float32
        return {"fc": LayerArrays(weights(0, 5, 4, dtype=dtype), weights(1, 5, 4, dtype=dtype), "Linear", 0)}

    analysis = analyze(record(tmp_path, range(2), layers))
    np.testing.assert_allclose(analysis.weight_angle[0], analysis.weight_angle[1], atol=1e-5)


def test_fixed_feedback_is_decomposed_once(tmp_path, monkeypatch):
    decomposed = []
    decompose = spectra.decompose
    monkeypatch.setattr(spectra, "decompose", lambda *given: decomposed.append(1) or decompose(*given))
    analyze(record(tmp_path, range(5)))
    assert len(decomposed) == 5 * 4 + 5 * 2 + 2  # forward; learned feedback; fixed feedback


def test_the_newest_snapshot_knows_the_order(tmp_path):
    """Before the first batch the layers' order is that of registration."""

    def layers(step):
        indices = {"a": 0, "b": 1} if step == 0 else {"a": 1, "b": 0}
        return {
            name: LayerArrays(weights(seed, 4, 5 + seed), weights(seed + 2, 4, 5 + seed), "Linear", indices[name])
            for seed, name in enumerate("ab")
        }

    run = record(tmp_path, range(3), layers)
    analysis = analyze(run)
    assert analysis.layer.values.tolist() == ["b", "a"]
    assert (analysis.weight_angle == analysis.weight_angle[0]).all()
    angle = PROBES["weight_angle"](forward=layers(0)["a"].forward, feedback=layers(0)["a"].feedback)
    assert analysis.weight_angle.sel(layer="a").values.tolist() == [angle] * 3


def test_each_array_is_read_once(tmp_path, monkeypatch):
    read = []
    original = survey.read_layer
    monkeypatch.setattr(survey, "read_layer", lambda *given: read.append(1) or original(*given))
    analyze(record(tmp_path, range(3)), ["norm_ratio"])
    assert len(read) == 3 * 4


@pytest.mark.parametrize("groups", [0, 7])
def test_groups_that_cannot_be(tmp_path, groups):
    run = record(tmp_path, [0])
    with h5py.File(snapshot_path(run.path, 0), "a") as file:
        file["grouped"].attrs["groups"] = groups
    with pytest.raises(InputError, match=rf"step-00000000.nc: .*layer 'grouped': groups: {groups} does not divide"):
        analyze(run)


def test_singular_vectors_come_with_the_values_and_only_where_asked_for(tmp_path, monkeypatch):
    run = record(tmp_path, [0])
    monkeypatch.setattr(subspaces, "decompose", None)  # no second decomposition
    assert analyze(run).output_principal_angle_mean.sel(layer=["stem", "grouped", "head"]).notnull().all()
    monkeypatch.setattr(np.linalg, "eigh", None)
    assert analyze(run, ["forward_stable_rank", "forward_power_law_alpha"]).forward_stable_rank.notnull().all()


def test_slow_probes_are_measured_by_name(tmp_path):
    run = record(tmp_path, [0])
    assert "descent_eigenvalue" not in analyze(run)
    measured = analyze(run, ["descent_eigenvalue"]).descent_eigenvalue
    assert measured.notnull().values[0].tolist() == [True, True, False, True]  # not for direct feedback


def test_units_of_transposed_convolutions_are_outputs(tmp_path):
    w, b = weights(0, 4, 3, 2, 2), weights(1, 4, 3, 2, 2)  # (in, out, height, width)
    analysis = analyze(record(tmp_path, [0], lambda _: {"up": LayerArrays(w, b, "ConvTranspose2d", 0)}))
    swapped = {"forward": w.swapaxes(0, 1), "feedback": b.swapaxes(0, 1)}
    assert analysis.unit_angle_median.item() == PROBES["unit_angle_median"](**swapped)


def test_progress_and_file(tmp_path):
    run = record(tmp_path, [0, 3])
    seen = []
    analysis = analyze(run, signals=signals, progress=lambda steps: (seen.append(step) or step for step in steps))
    assert seen == [0, 3]
    write_analysis(analysis, tmp_path / "analysis.nc")
    xr.testing.assert_identical(read_analysis(tmp_path / "analysis.nc"), analysis)
    with pytest.raises(InputError, match=r"analysis.nc: cannot be written"):
        write_analysis(analysis, tmp_path / "none" / "analysis.nc")


def test_signals_are_passed_on_as_they_are(tmp_path):
    """Numbers and objects too; a layer measures what it has all for."""
    seen = []

    def given(step):
        return {"head": signals(step)["head"] | {"law": seen, "forward_lr": 0.1 * step}}

    def spy(**known):
        seen.append(known)
        return Quantities(**known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "Quantities", spy)
        analyze(record(tmp_path, [0, 10]), ["error_angle"], signals=given)
    heads = [known for known in seen if "law" in known]
    assert [known["forward_lr"] for known in heads] == [0.0, 1.0]
    assert all(known["law"] is seen for known in heads)
    assert len(seen) == 2 * 4


def test_signals_are_not_asked_for_where_nothing_needs_them(tmp_path):
    analyze(record(tmp_path, [0]), ["weight_angle"], signals=_never)


def _never(step):
    raise AssertionError(f"asked for the signals of step {step}")


def test_where_signals_fail_the_weights_are_still_measured(tmp_path):
    def given(step):
        if step == 10:
            raise InputError("the loss cannot take the batch")
        return signals(step)

    analysis = analyze(record(tmp_path, [0, 10, 20]), signals=given, attribution=lambda step: {"head": (step, 1.0)})
    assert analysis.error_angle.sel(layer="head").notnull().values.tolist() == [True, False, True]
    assert analysis.weight_angle.sel(layer="head").notnull().all()
    assert json.loads(analysis.attrs["failures"]) == {"10": "the loss cannot take the batch"}
    assert analysis.attribution_angle.sel(layer="head", step=20) == 20.0
    assert np.isnan(analysis.attribution_angle.sel(step=[0, 10])).all()


def test_signals_that_always_fail_are_an_error(tmp_path):
    def given(step):
        raise InputError(f"step {step}: the loss cannot take the batch")

    with pytest.raises(InputError, match="step 0: the loss cannot take the batch"):
        analyze(record(tmp_path, [0, 10]), signals=given)


@pytest.mark.parametrize(
    ("steps", "broken", "expected"),
    [
        ([0], (), [0]),
        ([0, 1], (), [1]),
        (range(7), (5, 6), [4]),
        (range(3), (0, 1, 2), []),
    ],
)
def test_attribution_at_the_last_finite_snapshot(tmp_path, steps, broken, expected):
    def layers(step):
        feedback = weights(0, 5, 4)
        feedback[1, 1] = np.nan if step in broken else 1
        return {name: LayerArrays(weights(1, 5, 4), feedback, "Linear", i) for i, name in enumerate("ab")}

    asked = []

    def attribution(step):
        asked.append(step)
        return {"a": (10.0 + step, -0.5), "b": (20.0 + step, np.nan)}

    analysis = analyze(record(tmp_path, steps, layers), attribution=attribution)
    assert asked == expected
    for step in steps:
        now = analysis.sel(step=step)
        there = step in expected
        check_cell(now.attribution_angle.values, [10.0 + step, 20.0 + step] if there else [np.nan] * 2)
        check_cell(now.attribution_loss.values, [-0.5 if there else np.nan, np.nan])
    for name, units in (("attribution_angle", "degree"), ("attribution_loss", "1")):
        assert analysis[name].attrs["units"] == units
        assert analysis[name].attrs == COSTS[name].attrs


def test_attribution_belongs_to_everything(tmp_path):
    run = record(tmp_path, [0])
    assert "attribution_angle" not in analyze(run)
    assert set(analyze(run, ["feedback_norm"], attribution=_never)) == {"feedback_norm"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no analysis"),
        (b"PK", "is not an analysis file"),
        (xr.Dataset({"a": ("step", [1.0])}, {"step": [0]}), "has no coordinate 'layer'"),
        (
            xr.Dataset({"a": (("step", "layer", "x"), np.ones((1, 1, 2)))}, {"step": [0], "layer": ["fc"]}),
            r"a holds float64 over \(step, layer, x\)",
        ),
        (
            xr.Dataset({"a": (("step", "layer"), np.array([["x"]]))}, {"step": [0], "layer": ["fc"]}),
            "a holds .* over",
        ),
    ],
)
def test_a_file_that_is_no_analysis(tmp_path, content, message):
    path = tmp_path / "analysis.nc"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write_analysis(content, path)
    with pytest.raises(InputError, match=rf"analysis.nc: {message}"):
        read_analysis(path)


def test_unusable_runs(tmp_path):
    (tmp_path / "a").mkdir()
    run = record(tmp_path / "a", [])
    with pytest.raises(InputError, match="holds no snapshots"):
        analyze(run)
    write_snapshot(snapshot_path(run.path, 0), Snapshot(0, layers_at(0)))
    write_snapshot(snapshot_path(run.path, 1), Snapshot(1, {"head": layers_at(1)["head"]}))
    with pytest.raises(InputError, match=r"step-00000000.nc: has other layers than the last snapshot"):
        analyze(run)
    snapshot_path(run.path, 1).write_bytes(snapshot_path(run.path, 0).read_bytes()[:-100])
    with pytest.raises(InputError, match=r"step-00000001.nc: is not a whole wtdiag snapshot"):
        analyze(run)


def test_memory_does_not_grow_with_the_number_of_snapshots(tmp_path):
    def layers(step):
        return {"fc": LayerArrays(weights(step, 300, 400), weights(step + 1, 300, 400), "Linear", 0)}

    peaks = []
    for count in (2, 12):
        folder = tmp_path / str(count)
        folder.mkdir()
        run = record(folder, range(count), layers)
        tracemalloc.start()
        analyze(run, ["weight_angle", "forward_spectral_norm"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300 * 400 * 4  # less than one more weight for ten more snapshots
