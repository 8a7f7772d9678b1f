"""Data sets of one's own in a NumPy file: whole, of each shape, and damaged."""

import pickle

import numpy as np
import pytest
import torch

from wtdiag.probes.errors import InputError
from wtdiag.trainers.data import load

RNG = np.random.default_rng(0)
Y = np.array([0, 1, 2, 0, 1, 2])
WHOLE = {"X": RNG.normal(3.0, 5.0, (6, 4)), "y": Y, "X_test": RNG.normal(3.0, 5.0, (3, 4)), "y_test": Y[:3]}


def written(path, **changed):
    arrays = {name: array for name, array in (WHOLE | changed).items() if array is not None}
    np.savez(path / "mine.npz", **arrays)
    return path / "mine.npz"


def test_each_feature_is_scaled_by_the_training_examples(tmp_path):
    data = load("npz", data_dir=written(tmp_path))
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((4, 1, 1), 3, 6, 3)
    x, y = data.test.batch(torch.arange(3))
    mean, std = WHOLE["X"].mean(0), WHOLE["X"].std(0)
    np.testing.assert_allclose(x[:, :, 0, 0].numpy(), (WHOLE["X_test"] - mean) / std, rtol=1e-6)
    assert y.tolist() == [0, 1, 2]
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float64, np.bool_])
@pytest.mark.parametrize(("shape", "seen"), [((2,), (2, 1, 1)), ((2, 3), (1, 2, 3)), ((3, 2, 4), (3, 2, 4))])
def test_shapes_and_dtypes(tmp_path, dtype, shape, seen):
    arrays = {name: RNG.integers(0, 9, (count, *shape)).astype(dtype) for name, count in (("X", 6), ("X_test", 3))}
    data = load("npz", data_dir=written(tmp_path, **arrays, y=Y.astype(np.uint8)))
    assert data.shape == seen
    x, _ = data.train.batch(torch.arange(6))
    assert x.double().mean((0, 2, 3)).abs().max() < 1e-5


def test_a_constant_feature_becomes_0(tmp_path):
    data = load("npz", data_dir=written(tmp_path, X=np.full((6, 4), 1e9)))
    assert not data.train.batch(torch.arange(6))[0].any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": None}, "has no y; expected arrays X, y, X_test and y_test"),
        ({"X_test": None, "y_test": None}, "has no X_test, y_test"),
        ({"y": Y.astype(float)}, r"y is float64 of shape \(6,\); expected 6 integers"),
        ({"y": Y[:5]}, r"y is int64 of shape \(5,\); expected 6 integers"),
        ({"y": Y - 1}, "y holds the class -1; expected integers from 0"),
        ({"y": Y + 1}, "y holds the classes 1, 2, 3; expected all from 0"),
        ({"y": Y * 0}, "y holds the classes 0; expected all from 0 to the largest, at least two"),
        ({"y_test": Y[:3] + 5}, "y_test holds the class 7; expected those of y, 0 to 2"),
        ({"X_test": np.ones((3, 5))}, r"X_test has examples of shape \(5,\); expected that of X, \(4,\)"),
        ({"X": np.ones(6)}, r"X has shape \(6,\); expected \(examples, features\)"),
        ({"X": np.ones((6, 8, 8, 3))}, r"with their channels last; expected .*: X\.transpose\(0, 3, 1, 2\)"),
        ({"X": np.ones((0, 4)), "y": Y[:0]}, r"X has shape \(0, 4\)"),
        ({"X": np.full((6, 4), np.nan)}, "X holds numbers that are not finite"),
        ({"X": RNG.choice([-1e200, 1e200], (6, 4))}, "X holds numbers up to 1e\\+200, too large to scale"),
        ({"X": np.full((6, 4), "a")}, "X holds <U1; expected floats"),
        ({"X": np.ones((6, 4), complex)}, "X holds complex128"),
        ({"X": np.array([{}] * 6)}, "cannot be read; .*allow_pickle"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path, changed, message):
    path = written(tmp_path, **changed)
    with pytest.raises(InputError, match=message) as caught:
        load("npz", data_dir=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(Evil()), b"\x93NUMPY\x01\x00"])
def test_other_files_are_refused_and_not_executed(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.npz: is not an npz file; expected arrays"):
        load("npz", data_dir=path)


def test_files_that_are_torn_or_missing(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    middle = len(whole) // 3
    path.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(InputError, match=r"mine\.npz: (cannot be read|X)"):
        load("npz", data_dir=path)
    with pytest.raises(InputError, match=r"absent\.npz: is missing; expected a NumPy file"):
        load("npz", data_dir=tmp_path / "absent.npz")
    with pytest.raises(InputError, match="data_dir: missing; 'npz' is read from a file, so give its path"):
        load("npz")
