"""Networks of other code as plain arrays: what is recorded and imported, and what is refused."""

import io
import json
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from wtdiag.cli import main
from wtdiag.probes import GIVEN
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.arrays import SIGNALS
from wtdiag.probes.records.exported import import_run
from wtdiag.probes.records.foreign import layers_of, record
from wtdiag.probes.records.schema import layer_names, open_run, open_snapshot, read_layer, read_signals, snapshot_path

W, B = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
PAIR = {"fc": (W, B)}


class Tensor:
    """An array of another library, as NumPy sees it."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_steps_are_recorded_one_by_one_and_read_as_any_run(tmp_path):
    path = tmp_path / "mine"
    for step in (0, 5):
        record(
            path,
            step,
            {"a": (Tensor(W + step), Tensor(B)), "b": (W.astype(np.float32), W.astype(np.float32))},
            config={"rule": {"name": "fa"}, "settings": {"seed": 3}},
            loss=Tensor(np.array(0.5)),
            test_accuracy=np.float32(0.25),
        )
    run = open_run(path)
    assert run.steps.tolist() == [0, 5]
    assert run.config["rule"] == {"name": "fa"}
    assert (run.config["status"], run.config["foreign"]) == ("recorded", "record")
    assert run.metrics.test_accuracy.tolist() == [0.25, 0.25]
    np.testing.assert_array_equal(run.layer("a").forward.values, [W, W + 5])
    assert run.layer("b").forward.dtype == np.float32


def test_weights_of_the_other_layout_are_turned_and_one_array_twice_is_backprop():
    kernel = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)  # (kh, kw, in, out)
    layers = layers_of({"conv": (kernel, kernel + 1), "dense": (W, W)}, "io")
    np.testing.assert_array_equal(layers["conv"].forward, kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(layers["conv"].feedback, kernel.transpose(3, 2, 0, 1) + 1)
    np.testing.assert_array_equal(layers["dense"].forward, W.T)
    assert layers["dense"].feedback is None
    assert [layer.kind for layer in layers.values()] == ["Conv2d", "Linear"]


def test_signals_are_kept_beside_the_weights(tmp_path):
    delta = np.ones((4, 2), np.float32)
    record(tmp_path / "mine", 0, PAIR, signals={"fc": {"delta": delta, "delta_exact": 2 * delta}})
    with open_snapshot(snapshot_path(tmp_path / "mine", 0)) as file:
        signals = read_signals(file, "fc")
        assert layer_names(file) == ["fc"]
        assert read_layer(file, "fc").signals == {}
    assert list(signals) == ["delta", "delta_exact"]
    np.testing.assert_array_equal(signals["delta_exact"], 2 * delta)
    assert set(SIGNALS) <= set(GIVEN)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pairs": {"fc": (W, B.T)}}, "fc: W has shape (2, 3) and B (3, 2); expected two arrays of one shape"),
        ({"pairs": {"fc": W}}, "fc: expected a pair (W, B) of arrays, got one array of shape (2, 3)"),
        ({"pairs": {"fc": (W, None)}}, "fc: has no B; expected a pair (W, B), or (W, W)"),
        ({"pairs": {"fc": (W, B * np.nan)}}, "fc: B is nan at (0, 0); expected finite numbers"),
        ({"pairs": {"fc": (np.array([[object()]]), B)}}, "fc: W holds object; expected real numbers"),
        ({"pairs": {"fc": (W * 1j, B)}}, "fc: W holds complex128; expected real numbers"),
        ({"pairs": {"fc": ([1.0, 2.0], B)}}, "fc: W has shape (2,); expected 2 to 5 axes"),
        ({"pairs": {"fc": ([[1.0], [2.0, 3.0]], B)}}, "fc: W cannot be read as an array"),
        ({"pairs": {}}, "pairs: expected a mapping of layers to pairs (W, B), got {}"),
        ({"pairs": {1: (W, B)}}, "pairs: expected names of layers, got 1"),
        ({"pairs": PAIR, "layout": "hwio"}, "layout: 'hwio' is not known"),
        ({"pairs": PAIR, "step": -1}, "step: expected a whole number of at least 0, got -1"),
        ({"pairs": PAIR, "step": 3}, "step: 3 does not come after 3, the last one in"),
        ({"pairs": {"other": (W, B)}}, "pairs: the layers are other; expected those of step 3, fc"),
        ({"pairs": {"fc": (W.T, B.T)}}, "fc: W has shape (3, 2); expected (2, 3), as at step 3"),
        ({"pairs": PAIR, "loss": [1, 2]}, "loss: expected a number or text to log, got [1, 2]"),
        ({"pairs": PAIR, "signals": {"fd": {}}}, "signals: layer: 'fd' is not known"),
        ({"pairs": PAIR, "signals": {"fc": {"dleta": W}}}, "fc: signal: 'dleta' is not known; did you mean 'delta'?"),
        (
            {"pairs": PAIR, "signals": {"fc": {"delta": W, "delta_exact": B.T}}},
            "fc: signal delta has shape (2, 3) and delta_exact (3, 2); expected one shape",
        ),
        (
            {"pairs": PAIR, "signals": {"fc": {"delta": W[0]}}},
            "fc: signal delta has shape (3,); expected (examples, 2), as W has 2 outputs",
        ),
        (
            {"pairs": PAIR, "signals": {"fc": {"delta": B.T, "inputs": W}}},
            "fc: signals delta (3, 2) and inputs (2, 3) count different examples; expected the same",
        ),
    ],
)
def test_what_cannot_be_recorded_is_refused_in_one_line_and_nothing_is_lost(tmp_path, given, said):
    path = tmp_path / "mine"
    record(path, 3, PAIR, loss=1.0)
    with pytest.raises(InputError) as caught:
        record(path, given.pop("step", 4), **given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert open_run(path).steps.tolist() == [3]
    assert len(open_run(path).metrics) == 1


def test_a_run_of_another_kind_is_not_continued(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"status": "finished"}))
    with pytest.raises(InputError, match=r"holds a run that was not made by wtdiag\.record"):
        record(tmp_path, 0, PAIR)


STEPS = {
    "step": np.array([[0, 10]]),
    "fc_forward": np.stack([W, W + 1]),
    "fc_feedback": B,
    "loss": np.array([1.0, 0.5]),
}


@pytest.mark.parametrize("kind", ["npz", "compressed", "mat"])
def test_exported_files_become_runs(tmp_path, kind, capsys):
    file = tmp_path / f"weights.{'mat' if kind == 'mat' else 'npz'}"
    {"npz": np.savez, "compressed": np.savez_compressed}[kind](file, **STEPS) if kind != "mat" else savemat(file, STEPS)
    with pytest.raises(SystemExit) as ended:
        main(["import", str(file), "--rule", "fa", "--out", str(tmp_path / "run")])
    assert not ended.value.code
    assert capsys.readouterr().out == f"{tmp_path / 'run'}\n"
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [0, 10]
    assert (run.config["status"], run.config["rule"]) == ("finished", {"name": "fa"})
    assert run.metrics.loss.tolist() == [1.0, 0.5]
    np.testing.assert_array_equal(run.layer("fc").forward.values, STEPS["fc_forward"])
    np.testing.assert_array_equal(run.layer("fc").feedback.values, [B, B])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"step": np.array([10, 0])}, "step goes back from 10 to 0; expected ascending steps"),
        ({"step": np.array([0.5, 1])}, "step holds float64 [0.5, 1.0]; expected whole numbers from 0"),
        ({"fc_feedback": np.full((2, 3), np.nan)}, "fc_feedback is nan at (0, 0); expected finite numbers"),
        ({"fc_feedback": B.T}, "fc has forward weights (2, 2, 3) and feedback weights (3, 2); expected (2, out, in)"),
        ({"fc_feedback": None}, "fc has no feedback weights; expected fc_feedback in the file"),
        ({"fc_feedback": np.array([[None]])}, "fc_feedback holds Python objects; expected an array of numbers"),
        ({"loss": np.ones(3)}, "loss has shape (3,) of float64; expected one number for each of 2 steps"),
        ({"fc_forward": None, "fc_feedback": None}, "expected <layer>_forward and _feedback"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line_and_nothing_is_written(tmp_path, changed, said):
    file = tmp_path / "weights.npz"
    np.savez(file, **{name: value for name, value in (STEPS | changed).items() if value is not None})
    with pytest.raises(InputError) as caught:
        import_run(file, tmp_path / "run")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_name_twice_a_bomb_and_damage_are_refused(tmp_path):
    file = tmp_path / "weights.npz"
    stored = io.BytesIO()
    np.save(stored, B)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("fc_forward.npy", stored.getvalue())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("fc_forward.npy", stored.getvalue())
    with pytest.raises(InputError, match="holds 'fc_forward' twice"):
        import_run(file, tmp_path / "run")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("fc_forward.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(2**20))
    with pytest.raises(InputError, match="unpacks to 314572800 bytes; expected at most 268435456"):
        import_run(file, tmp_path / "run")
    file.write_bytes(b"PK and nothing else")
    with pytest.raises(InputError, match=r"cannot be read as \.npz or \.mat"):
        import_run(file, tmp_path / "run")
    with pytest.raises(InputError, match="cannot be read"):
        import_run(tmp_path / "none.npz", tmp_path / "run")
