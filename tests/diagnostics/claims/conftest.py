"""The two worlds, made once for each file."""

import pytest

from tests.diagnostics.claims.worlds import world


@pytest.fixture(scope="module")
def holding():
    return world(True)


@pytest.fixture(scope="module")
def failing():
    return world(False)
