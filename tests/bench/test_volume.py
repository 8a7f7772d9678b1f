"""What a rule has to send and to store beyond backprop, counted without holding it."""

import pytest

from bench.evidence.volume import BYTES, volume

PARAMETERS = 11_689_512  # of torchvision's ResNet-18
WEIGHTS = PARAMETERS - 9_600 - 1_000  # without scales and shifts of batch norm, and the last layer's bias
BUFFERS = 9_600 + 20  # running means and variances, and the batches that each of 20 batch norms has seen


@pytest.mark.parametrize(("rule", "learned", "held"), [("bp", 0, 0), ("fa", 0, 1), ("kp", 1, 1)])
def test_learned_feedback_is_sent_and_all_feedback_is_stored(rule, learned, held):
    gradients, snapshot = volume("resnet18", rule)
    assert gradients == BYTES * (PARAMETERS + learned * WEIGHTS)
    assert snapshot == BYTES * (PARAMETERS + held * WEIGHTS + BUFFERS)
