"""Damaged files of every kind: each call gives a result, or one line."""

import pytest

from tests.fuzz.cases import MEMORY, make_sound, one, peak

CASES = 300
"""``make fuzz`` makes 10,000 others."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    make_sound(folder)
    return folder


@pytest.mark.parametrize("part", range(3))
def test_nothing_but_a_result_or_one_line(sound, tmp_path, part):
    before = peak()
    outcomes = [one(10**6 + seed, sound, tmp_path) for seed in range(part * CASES // 3, (part + 1) * CASES // 3)]
    wrong = [str(outcome) for outcome in outcomes if outcome.wrong]
    assert not wrong, "\n".join(wrong)
    assert peak() - before < MEMORY
    assert any(outcome.said for outcome in outcomes)
    assert any(not outcome.said for outcome in outcomes)
