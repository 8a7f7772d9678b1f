"""Predicted maps of stability: equal to what each training is found to be, and true of what becomes of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import settings_with_role
from wtdiag.studies.file.plan import joined
from wtdiag.studies.file.space import SEARCHABLE
from wtdiag.studies.predict.boundary import predict
from wtdiag.studies.predict.live_stability import stability
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.observe.open_run import open_run

SMALL: dict[str, Any] = {"width": 16, "depth": 3, "snapshots": 2}
SGD: dict[str, Any] = {"feedback_optimizer": "sgd", "feedback_lr": 0.7}

MAPS: list[tuple[dict[str, Any], dict[str, list[float]]]] = [
    ({"rule": "ia", **SGD}, {"feedback_lr": [0.0, 0.3, 3.0], "null": [0.0, 0.01, 1.0]}),
    ({"rule": "ia", **SGD}, {"amp": [0.01, 0.5], "decay": [0.001, 1.0]}),
    ({"rule": "ia"}, {"amp": [0.01, 0.5], "null": [0.01, 1.0]}),
    ({"rule": "aa", **SGD, "nesterov": True}, {"feedback_momentum": [0.0, 0.9], "sparse": [0.06, 0.6]}),
    ({"rule": "aa", "probe_size": 8}, {"scale": [0.1, 5.0], "amp": [0.01, 0.1]}),  # B stays where no input comes
    ({"rule": "sa"}, {"depth": [2, 4], "self": [0.1, 0.4]}),
    ({"rule": "kp", "warmup": 0.0}, {"lr": [0.01, 0.1], "weight_decay": [0.0, 0.1]}),
    ({"rule": "kp"}, {"momentum": [0.5, 0.9], "warmup": [0.0, 2.0]}),
    ({"rule": "wm"}, {"noise_std": [0.5, 2.0], "amp": [0.1, 0.2]}),
    ({"rule": "wm-reg"}, {"amp": [0.0, 0.2], "decay": [0.0, 0.2]}),
    ({"rule": "ia", **SGD, "coefficients": {"decay": "linear:0.1:0.0"}}, {"amp": [0.1, 0.2], "null": [0.1, 1.0]}),
    ({"rule": "fa"}, {"lr": [0.1, 0.2], "scale": [1.0, 2.0]}),
]


@pytest.mark.parametrize(("settings", "axes"), MAPS)
def test_each_pair_is_what_a_training_of_its_settings_is_found_to_be(
    settings: dict[str, Any], axes: dict[str, list[float]], tmp_path: Path
) -> None:
    base = Settings(**SMALL | settings)
    x, y = axes
    found = predict(base, (x, y), (axes[x], axes[y]))
    assert found.sizes == {"map_x": len(axes[x]), "map_y": len(axes[y])}
    for a in axes[x]:
        for b in axes[y]:
            now = Settings(**joined(base.as_dict(), {x: a, y: b}))
            expected = stability(Training(now, tmp_path / "never-begun"))
            pair = found.sel(map_x=a, map_y=b)
            assert pair.step_size_number.item() == pytest.approx(expected.step_size_number, rel=1e-6, nan_ok=True)
            assert pair.log_gain.item() == pytest.approx(expected.log_gain, rel=1e-6, abs=1e-9, nan_ok=True)


def test_numbers_make_no_other_network(tmp_path: Path) -> None:
    """What the role of a setting promises: those of numbers share one network, and predict what their own would."""
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    base = Settings(**SMALL, rule="ia", **SGD)
    for name in set(settings_with_role("number")).intersection(SEARCHABLE):
        choices = fields[name].metadata["choices"]
        value = choices[-2] if choices else not fields[name].default if fields[name].type == "bool" else 0.3
        found = predict(base, (name, "null"), ([value], [0.02]))
        expected = stability(Training(Settings(**joined(base.as_dict(), {name: value, "null": 0.02})), tmp_path / "no"))
        assert found.step_size_number.item() == pytest.approx(expected.step_size_number, rel=1e-6), name
        assert found.log_gain.item() == pytest.approx(expected.log_gain, rel=1e-6), name


@pytest.mark.parametrize(
    ("settings", "parameter", "axis"),
    [
        ({"rule": "ia", **SGD}, "null", np.geomspace(0.01, 10, 13)),
        ({"rule": "ia", **SGD}, "feedback_lr", np.geomspace(0.1, 100, 13)),
        ({"rule": "sa"}, "decay", np.geomspace(0.1, 100, 13)),
        ({"rule": "sa"}, "feedback_lr", np.geomspace(0.1, 100, 13)),
    ],
    ids=lambda value: value.get("rule") if isinstance(value, dict) else value if isinstance(value, str) else "",
)
def test_the_contour_of_one_parts_trainings_that_run_away_from_those_that_do_not(
    settings: dict[str, Any], parameter: str, axis: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    base = Settings(**SMALL | settings, epochs=2, lr=0.01)
    found = predict(base, (parameter, "feedback_momentum"), (axis.tolist(), [0.0]))
    number = found.step_size_number.values[:, 0]
    critical = float(np.exp(np.interp(0.0, np.log(number), np.log(axis))))
    assert axis[0] < critical < axis[-1]

    def growth(factor: float) -> float:
        now = Settings(**joined(base.as_dict(), {parameter: factor * critical}))
        for _ in Training(now, tmp_path / str(factor)):
            pass
        norm = open_run(tmp_path / str(factor)).metrics.feedback_norm
        return float(norm.max() / norm.iloc[0])

    assert growth(0.7) < 10
    assert growth(1.5) > 1e4


def test_says_what_it_holds() -> None:
    found = predict(Settings(rule="sa", **SMALL), ("self", "decay"), ([0.1], [0.2, 0.4]))
    assert found.step_size_number.attrs["units"] == found.log_gain.attrs["units"] == "1"
    assert (found.map_x.attrs["long_name"], found.map_y.attrs["long_name"]) == ("self", "decay")
    assert found.map_y.values.tolist() == [0.2, 0.4]


@pytest.mark.parametrize(
    ("parameters", "values", "message"),
    [
        (("nul", "amp"), ([1.0], [1.0]), "parameter: 'nul' is not known; did you mean 'null'"),
        (("sparse", "amp"), ([1.0], [1.0]), "parameter: 'sparse' is not known.*Choices: .*feedback_lr.*null"),
        (("amp", "amp"), ([1.0], [1.0]), "parameters: expected two, got 'amp' twice"),
        (("amp", "null"), ([1.0], []), "values: there is none for null; expected at least one"),
        (("amp", "lr"), ([1.0], [-1.0]), "lr: expected a number ≥ 0, got -1.0"),
        (("amp", "depth"), ([1.0], [2.5]), "depth: expected a whole number, got 2.5"),
        (("rule", "amp"), ([1.0], [1.0]), "parameter: 'rule' is not known"),
    ],
)
def test_refuses_what_it_cannot_use(parameters: Any, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict(Settings(rule="ia", **SMALL), parameters, values)
