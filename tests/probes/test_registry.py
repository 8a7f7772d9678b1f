"""Properties that every probe has to have, run over the whole registry; and the registry itself."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtdiag.probes import GIVEN, PROBES, Quantities, declare, probe, shared
from wtdiag.probes.errors import InputError
from wtdiag.probes.registry import check_probes

OTHERS = {"forward_lr", "forward_decay", "law", "operator", "fresh_angles"}
ARRAYS = GIVEN.keys() - OTHERS
# Norms of one of two arrays that are compared in one pass.
FROBENIUS = {name for name, about in PROBES.items() if about.homogeneity == 1 and about.uses & {
    "weight_comparison", "error_comparison"}}  # fmt: skip
TAILS = {name for name, about in PROBES.items() if about.uses & {"forward_tail", "feedback_tail"}}  # NaN of few values

# Those of a law of learning or an operation of a layer have suites of their own.
OF_ARRAYS = sorted(name for name, about in PROBES.items() if not about.needs & {"law", "operator", "fresh_angles"})
each_probe = pytest.mark.parametrize("name", OF_ARRAYS)
shapes = st.one_of(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
)


def arrays(name, shape, seed, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return {need: generator.normal(size=shape).astype(dtype) for need in sorted(PROBES[name].needs & ARRAYS)}


def measure(name, given_):
    return quantities_of(name, given_)[name]


def quantities_of(name, given_):
    rest = {"forward_lr": 0.1} if "forward_lr" in PROBES[name].needs else {}
    return Quantities(**given_, **rest)


def all_nan(value):
    return bool(np.isnan(value).all())


@pytest.mark.parametrize("name", sorted(PROBES))
def test_says_what_it_is(name):
    about = PROBES[name]
    assert about.needs <= ARRAYS | OTHERS
    assert about.needs
    assert about.units in {"degree", "1", "step"}
    assert about.long_name
    assert about.equation
    assert about.reference
    assert about.function.__doc__
    assert about.dims in {(), ("mode",)}


@each_probe
@settings(max_examples=25)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1), exponent=st.sampled_from([-100, -30, 3, 30, 100]))
def test_scale(name, shape, seed, exponent):
    given_ = arrays(name, shape, seed)
    scaled = {key: array * 10.0**exponent for key, array in given_.items()}
    factor = 10.0 ** (exponent * PROBES[name].homogeneity)
    expected = factor * np.asarray(measure(name, given_))
    np.testing.assert_allclose(measure(name, scaled), expected, rtol=1e-9, atol=1e-9 * factor)


@each_probe
@settings(max_examples=25)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_order_of_rows_and_columns_does_not_matter(name, shape, seed):
    given_ = arrays(name, shape, seed)
    generator = np.random.default_rng(seed + 1)
    rows, columns = generator.permutation(shape[0]), generator.permutation(shape[1])
    permuted = {key: array[rows][:, columns] for key, array in given_.items()}
    np.testing.assert_allclose(measure(name, permuted), measure(name, given_), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in OF_ARRAYS if not PROBES[name].entrywise])
@settings(max_examples=25)
@given(rows=st.integers(1, 7), columns=st.integers(1, 7), seed=st.integers(0, 2**32 - 1))
def test_rotation_does_not_matter(name, rows, columns, seed):
    given_ = arrays(name, (rows, columns), seed)
    rotation = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(rows, rows)))[0]
    rotated = {key: rotation @ array for key, array in given_.items()}
    np.testing.assert_allclose(measure(name, rotated), measure(name, given_), rtol=1e-7, atol=1e-7)


@each_probe
@settings(max_examples=25)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_bounds(name, shape, seed):
    value = measure(name, arrays(name, shape, seed, np.float32))
    low, high = PROBES[name].bounds
    assert np.all((value >= low - 1e-9) & (value <= high + 1e-9)) or (name in TAILS and math.isnan(value))
    assert np.ndim(value) == len(PROBES[name].dims)


@each_probe
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_entry_that_is_not_finite_gives_nan(name, bad, dtype):
    for key in PROBES[name].needs & ARRAYS:
        given_ = arrays(name, (3, 4), 0, dtype)
        given_[key][1, 2] = bad
        quantities = quantities_of(name, given_)
        whole = arrays(name, (3, 4), 0, dtype)
        counts = not np.array_equal(measure(name, whole), measure(name, whole | {key: 0 * whole[key]}), equal_nan=True)
        assert all_nan(quantities[name]) == counts, key  # wherever the array counts at all
        quantities.null(name)  # neither warns nor raises


@each_probe
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_has_a_norm_and_nothing_else(name, dtype):
    quantities = quantities_of(name, dict.fromkeys(PROBES[name].needs & ARRAYS, np.zeros((3, 4), dtype)))
    value = quantities[name]
    if name in {"dead_units", "below_floor"}:
        assert value == 1
        return
    assert not np.any(value) if PROBES[name].homogeneity and name not in TAILS else all_nan(value)
    quantities.null(name)


@each_probe
@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_no_entries(name, shape):
    quantities = quantities_of(name, dict.fromkeys(PROBES[name].needs & ARRAYS, np.zeros(shape)))
    value = quantities[name]
    assert value == 0 if name in FROBENIUS else all_nan(value)
    quantities.null(name)


@each_probe
def test_below_the_floor_of_float32(name):
    """What compares two arrays is unknown; norms and spectra are those of the same numbers in float64."""
    generator = np.random.default_rng(0)
    given_ = {
        key: (1e-42 * generator.normal(size=(3, 4))).astype(np.float32) for key in sorted(PROBES[name].needs & ARRAYS)
    }
    value = measure(name, given_)
    directions = PROBES[name].neutral and PROBES[name].scale == "linear"
    if directions or name in {"radial_cosine", "relative_distance", "weight_gain"}:
        assert math.isnan(value)
    elif name == "below_floor":
        assert value == 1
    else:
        exact = measure(name, {key: array.astype(np.float64) for key, array in given_.items()})
        np.testing.assert_allclose(value, exact, rtol=1e-6)


@each_probe
@pytest.mark.parametrize("scale", [1e200, 1e307, 1e-200, 1e-307])
def test_warns_of_nothing_at_the_edges_of_float64(name, scale):
    quantities = quantities_of(name, {key: scale * array for key, array in arrays(name, (4, 5), 0).items()})
    _ = quantities[name], quantities.null(name)


@each_probe
def test_integer_entries(name):
    given_ = {key: np.arange(i, 12 + i).reshape(3, 4) for i, key in enumerate(sorted(PROBES[name].needs & ARRAYS))}
    as_float = {key: array.astype(np.float64) for key, array in given_.items()}
    np.testing.assert_array_equal(measure(name, given_), measure(name, as_float))


@each_probe
def test_inputs_stay_as_they_are(name):
    given_ = arrays(name, (5, 6), 0)
    before = {key: array.copy() for key, array in given_.items()}
    for array in given_.values():
        array.flags.writeable = False
    quantities = quantities_of(name, given_)
    _ = quantities[name], quantities.null(name)
    assert all((given_[key] == before[key]).all() for key in given_)


@each_probe
def test_layout_in_memory_does_not_matter(name):
    given_ = arrays(name, (4, 6), 0)
    turned = {key: np.asfortranarray(array) for key, array in given_.items()}
    np.testing.assert_allclose(measure(name, turned), measure(name, given_), rtol=1e-12)


def test_a_new_probe_is_one_function(monkeypatch):
    monkeypatch.setattr("wtdiag.probes.registry.PROBES", registry := dict(PROBES))
    calls = []
    monkeypatch.setattr("wtdiag.probes.registry._SHARED", {})
    monkeypatch.setattr("wtdiag.probes.registry.GIVEN", dict(GIVEN))
    declare(scale="factor")

    @shared
    def total(forward):
        calls.append(1)
        return forward.sum()

    @probe(units="1", long_name="mean", equation="", reference="", subject="forward", null=lambda total: (0.0, total))
    def mean(total, forward, scale=1.0):
        return scale * total / forward.size

    quantities = Quantities(forward=np.ones((2, 2)), scale=3.0)
    assert quantities["mean"] == 3.0
    assert quantities.null("mean") == (0.0, 4.0)
    assert len(calls) == 1
    assert registry["mean"].needs == {"forward"}
    assert registry["mean"](forward=np.ones(3)) == 1.0


def test_an_optional_quantity_is_computed_where_it_can_be(monkeypatch):
    monkeypatch.setattr("wtdiag.probes.registry.PROBES", registry := dict(PROBES))
    monkeypatch.setattr("wtdiag.probes.registry._SHARED", {})

    @shared
    def doubled(feedback):
        return 2 * feedback

    @probe(units="1", long_name="", equation="", reference="", subject="forward")
    def either(forward, doubled=None):
        return forward if doubled is None else doubled

    assert registry["either"].needs == {"forward"}
    assert Quantities(forward=1)["either"] == 1
    assert Quantities(forward=1, feedback=3)["either"] == 6
    assert "doubled" in Quantities(feedback=3)
    assert "doubled" not in Quantities(forward=1)


def test_a_name_stands_for_one_quantity(monkeypatch):
    monkeypatch.setattr("wtdiag.probes.registry.PROBES", registry := dict(PROBES))

    def weight_angle(forward):
        return 0.0

    def forward(weights):
        return weights

    about = {"units": "1", "long_name": "", "equation": "", "reference": "", "subject": "forward"}
    for register in (probe(**about), shared):
        with pytest.raises(InputError, match="quantity: the name 'weight_angle' is taken"):
            register(weight_angle)
    with pytest.raises(InputError, match="quantity: the name 'forward' is taken"):
        shared(forward)
    assert registry == PROBES


@pytest.mark.parametrize("needed", [True, False])
def test_a_parameter_that_nothing_provides_is_refused(monkeypatch, needed):
    monkeypatch.setattr("wtdiag.probes.registry.PROBES", registry := dict(PROBES))

    def misspelt(forward, gruops=1):
        return 0.0

    def lost(forwrad):
        return 0.0

    function = lost if needed else misspelt
    probe(units="1", long_name="", equation="", reference="", subject="forward")(function)
    source = "forwrad" if needed else "gruops"
    with pytest.raises(InputError, match=f"{function.__name__}: parameter: '{source}' is not known; did you mean"):
        check_probes()
    with pytest.raises(InputError, match=source):
        registry[function.__name__](forward=np.ones((2, 2)))


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match="feedback: is neither given nor the name of a probe; given: forward"):
        PROBES["weight_angle"](forward=np.ones((2, 2)))


def test_measuring_does_not_load_torch():
    script = "import wtdiag.probes, wtdiag.diagnostics.analysis.analyze, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
