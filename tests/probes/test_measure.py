"""What a measure says of itself, and how it comes back from a file's attributes."""

import pytest

from wtdiag.probes import PROBES, Measure
from wtdiag.probes.discovery import enter
from wtdiag.probes.errors import InputError
from wtdiag.probes.measure import from_attrs

ABOUT = {"name": "x", "units": "1", "long_name": "", "equation": "", "reference": ""}


@pytest.mark.parametrize("name", sorted(PROBES))
def test_attributes_tell_all_that_readers_ask_for(name):
    about, read = PROBES[name], from_attrs(name, PROBES[name].attrs)
    fields = "units", "subject", "bounds", "neutral", "limit", "scale", "homogeneity", "predicts", "label"
    assert [getattr(read, field) for field in fields] == [getattr(about, field) for field in fields]


@pytest.mark.parametrize(
    "wrong", [{"subject": "feed"}, {"subject": "forward", "scale": "cubic"}, {"subject": "signal", "bounds": (1, 0)}]
)
def test_a_measure_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match=r"^x: "):
        Measure(**ABOUT, **wrong)


def test_what_attributes_get_wrong_is_taken_from_what_is_known():
    wrong = {"subject": 3, "scale": "", "neutral": float("nan"), "limit": [1.0], "lower_bound": 2.0, "units": ""}
    assert from_attrs("weight_angle", wrong, PROBES["weight_angle"]).attrs == PROBES["weight_angle"].attrs


def test_a_registry_refuses_a_name_taken_twice():
    registry = {"fa": 1}
    with pytest.raises(InputError, match="rule: the name 'fa' is taken"):
        enter(registry, "rule", "fa", 2)
    assert registry == {"fa": 1}
