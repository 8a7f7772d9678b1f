"""Who is to blame, from costs and their errors."""

import numpy as np
import pytest

from wtdiag.diagnostics.analysis.costs import culprits

NAN = np.nan


@pytest.mark.parametrize(
    ("angle", "angle_se", "loss", "expected"),
    [
        ([0, 5, 30, 2], None, None, (2,)),
        ([0, 5, 30, 29], None, None, (2, 3)),  # nearly the same
        ([0, 5, 30, 20], [0, 1, 1, 1], None, (2,)),
        ([0, 5, 30, 20], [0, 0, 6, 6], None, (2, 3)),  # not told apart by their errors
        ([0, 5, 30, 20], [0, 0, 0, 12], None, (2, 3)),
        ([0, 5, 30, 20], [0, 9, 0, 0], None, (2, 3)),  # an error of zero beside large ones is chance
        ([0, 5, 30, 29], None, [0, 0, 0.1, 0.5], (3,)),  # the loss tells them apart
        ([0, 5, 30, 2], None, [0, 0, 0.1, 0.5], (2, 3)),  # the two costs blame different layers
        ([0, 5, 30, 2], None, [0, -1, -1, -1], (2,)),
        ([10, 10, 10, 10], None, None, ()),
        ([NAN, 5, NAN, 2], None, [NAN, NAN, NAN, NAN], (1,)),
    ],
)
def test_one_culprit_or_those_that_share_the_blame(angle, angle_se, loss, expected):
    given = {"attribution_angle": angle, "attribution_angle_se": angle_se, "attribution_loss": loss}
    found = culprits({name: np.array(values, float) for name, values in given.items() if values is not None})
    assert found.layers == expected
    assert 0 < found.share <= 1


@pytest.mark.parametrize("angle", [[0, 0], [-3, -1], [NAN, NAN], [np.inf, NAN]])
def test_no_angle_has_no_culprit(angle):
    assert culprits({"attribution_angle": np.array(angle, float)}) is None
