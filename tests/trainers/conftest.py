"""What the suites over all rules need of rules that draw noise in the forward pass."""

import pytest
import torch

from wtdiag.trainers.rules.perturbed import Perturbed


@pytest.fixture(autouse=True)
def silence(request, monkeypatch):
    """Draw noise of deviation zero in forward passes, unless a test is marked ``noisy``.

    Most properties of a rule are equalities with another pass or another network, which noise would hide.
    """
    if not request.node.get_closest_marker("noisy"):
        monkeypatch.setattr(Perturbed, "draw", lambda self, x: torch.zeros_like(x))
