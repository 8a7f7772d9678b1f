"""Errors of other code, told on one line."""

import pytest

from wtdiag.probes.errors import InputError, with_type


class Odd(Exception):
    """An error of a user's code."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("shapes differ"), "ValueError: shapes differ"),
        (KeyError("fc"), "KeyError: 'fc'"),
        (Odd("2 errors:\n\tfc1: is wide\r\n\n  fc2: is deep\n"), "Odd: 2 errors: fc1: is wide fc2: is deep"),
        (Odd("\nfirst a break"), "Odd: first a break"),
        (Odd(), "Odd"),
        (Odd(" \n"), "Odd"),
        (InputError("lr: expected a number"), "lr: expected a number"),
    ],
)
def test_an_error_of_other_code_is_its_type_and_its_whole_message_on_one_line(error, told):
    assert with_type(error) == told


def test_a_very_long_message_keeps_its_ends():
    told = with_type(Odd("begins " + "x\n" * 10**5 + "ends"))
    assert (told[:11], told[-5:], len(told)) == ("Odd: begins", " ends", 2000)
