"""What is known of each setting stands in its field, and every question about settings is a query over that."""

import dataclasses

import pytest

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import ROLES, DeclaredSettings, settings_with_role
from wtdiag.trainers.config.settings import Settings

FIELDS = {field.name: field for field in dataclasses.fields(DeclaredSettings)}


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_has_one_role_and_may_be_a_number(name):
    about = FIELDS[name].metadata
    assert len(set(about["roles"]) - {"number"}) == 1
    assert set(about["roles"]) <= ROLES.keys()
    assert about["help"].endswith(".")


def test_every_role_has_settings_and_every_setting_is_found():
    assert all(settings_with_role(role) for role in ROLES)
    assert settings_with_role(*ROLES) == tuple(FIELDS)
    assert [field.name for field in dataclasses.fields(Settings)] == list(FIELDS)


def test_an_unknown_role_is_an_error():
    with pytest.raises(InputError, match=r"role: 'locatoin' is not known; did you mean 'location'"):
        settings_with_role("location", "locatoin")


@pytest.mark.parametrize("name", [name for name in FIELDS if FIELDS[name].metadata["below"] is not None])
def test_bounds_of_the_field_hold(name):
    below = FIELDS[name].metadata["below"]
    with pytest.raises(InputError, match=f"^{name}: expected a number below {below:g}, got {below}"):
        Settings(**{"rule": "sa", name: below})
