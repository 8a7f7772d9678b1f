"""What an analysis says of its measures, also one that was made before it said so."""

import json

import h5py
import numpy as np
import pytest
import xarray as xr

from tests.diagnostics.synthetic import CONFIG, LAYERS, healthy, metrics
from wtdiag.diagnostics.analysis.analyze import read_analysis, write_analysis
from wtdiag.diagnostics.analysis.layout import carrying
from wtdiag.diagnostics.analysis.reading import about, known, meaningful, predictions
from wtdiag.diagnostics.analysis.view import View
from wtdiag.probes.errors import InputError


def former(path, **attrs):
    """Write an analysis as it was once: without what is known of its measures and of fixed feedback."""
    analysis = healthy().rename(log_norm_ratio_sum="log_gain_sum").assign_attrs(attrs)
    write_analysis(analysis, path / "analysis.nc")
    return read_analysis(path / "analysis.nc")


def test_an_old_analysis_says_what_one_of_today_does(tmp_path):
    read = former(tmp_path, rule="sa")
    assert "log_gain_sum" not in read
    for name, values in healthy().data_vars.items():
        np.testing.assert_array_equal(read[name], values)
        if name in known():
            assert read[name].attrs == known()[name].attrs
    assert not read.fixed.any()


def test_an_old_analysis_tells_by_its_rule_which_feedback_is_fixed(tmp_path):
    assert former(tmp_path, rule="fa").fixed.all()
    layers = {name: {"name": "usf" if name == "fc4" else "sa"} for name in LAYERS}
    mixed = former(tmp_path, rule="mixed", rule_coefficients=json.dumps({"layers": layers}))
    assert mixed.layer.values[mixed.fixed].tolist() == ["fc4"]
    assert not former(tmp_path, rule="mixed", rule_coefficients="[").fixed.any()


def test_what_a_file_says_stands_where_it_makes_sense(tmp_path):
    analysis = healthy().assign_coords(fixed=("layer", np.arange(len(LAYERS)) == 2))
    analysis.weight_angle.attrs |= {"subject": "signal", "neutral": "none", "lower_bound": 1.0, "upper_bound": 0.0}
    write_analysis(analysis.assign(new=analysis.weight_angle.assign_attrs(limit=2.0)), tmp_path / "analysis.nc")
    read = read_analysis(tmp_path / "analysis.nc")
    angle = about(read.weight_angle)
    assert (angle.subject, angle.neutral, angle.bounds) == ("signal", 90, (0, 180))
    assert meaningful(read, "weight_angle").all()
    assert meaningful(read, "norm_ratio").tolist() == [False, *[True] * 5]
    assert about(read.new).limit == 2
    assert read.fixed.values.tolist() == analysis.fixed.values.tolist()


def test_some_measures_are_read_as_all_of_them_are(tmp_path, monkeypatch):
    path = tmp_path / "analysis.nc"
    analysis = healthy().assign_coords(carries_error=("layer", np.arange(len(LAYERS)) > 1))
    write_analysis(analysis.assign_attrs(rule="sa"), path)
    whole = read_analysis(path)
    monkeypatch.setattr("xarray.load_dataset", lambda *_, **__: pytest.fail("everything was read"))
    some = read_analysis(path, ("weight_angle", "error_angle", "no_measure"))
    xr.testing.assert_equal(some, whole[["weight_angle", "error_angle"]].drop_vars("fixed"))
    assert some.attrs == whole.attrs
    assert carrying(some).tolist() == carrying(whole).tolist() == [False, False, *[True] * 4]


def test_a_link_is_refused_whatever_is_read(tmp_path):
    path = tmp_path / "analysis.nc"
    write_analysis(healthy(), path)
    with h5py.File(path, "a") as file:
        file["other"] = h5py.ExternalLink("/dev/null", "/x")
    with pytest.raises(InputError, match="other: is a link"):
        read_analysis(path, ("weight_angle",))


def test_predictions_are_found_by_what_they_predict():
    assert predictions(healthy()) == {"weight_angle": "predicted_angle", "weight_gain": "predicted_gain"}
    assert predictions(healthy()[["weight_angle"]]) == {}


def test_a_detector_that_misspells_a_measure_fails():
    view = View(healthy().assign(mine=healthy().weight_angle), CONFIG, metrics())
    assert not view.has("weight_gain")  # defined, but not in this analysis
    assert view.has("mine")
    for name in ("wieght_angle", "wieght_angle_null"):
        with pytest.raises(InputError, match="measure: 'wieght_angle' is not known; did you mean 'weight_angle'"):
            view[name]
