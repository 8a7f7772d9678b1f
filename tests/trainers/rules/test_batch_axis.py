"""Which axis of a tensor counts the examples."""

import pytest
import torch
from torch import nn

from tests.trainers.rules.networks import Encoder, build, close, gradients, step
from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.rules import RULES


def encoders(name: str, **options) -> list[nn.Module]:
    torch.manual_seed(1)
    sample = torch.randn(2, 5, 8, dtype=torch.float64)
    nets = []
    for batch_first in (True, False):
        given = sample if batch_first else sample.transpose(0, 1)
        nets.append(transport_free(Encoder(batch_first).double(), build(name, **options), sample=given))
    nets[1].load_state_dict(nets[0].state_dict())
    return nets


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in RULES if name not in ("wm", "ldrl", "brsf")]  # which draw in the order of the memory
    + [(name, {"reduction": "sum"}) for name in ("wm-reg", "ia", "sa", "aa", "sum")],
)
def test_sequences_first_and_batches_first_learn_the_same(name, options):
    nets = encoders(name, **options)
    positions = 3 if options else 4  # as many as examples, where these could be mistaken for each other
    x, target = torch.randn(4, positions, 8, dtype=torch.float64), torch.arange(4) % 3
    for net, given in zip(nets, (x, x.transpose(0, 1)), strict=True):
        step(net, given, target)
    first, last = (gradients(net, "") for net in nets)
    assert first.keys() == last.keys()
    for key in first:
        close(last[key], first[key])


@pytest.mark.parametrize(
    ("name", "options"), [("dfa", {}), ("drtp", {}), ("ia", {"reduction": "sum"}), ("wm", {"reduction": "sum"})]
)
def test_an_axis_of_examples_that_cannot_be_known_is_asked_for(name, options):
    x, target = torch.randn(4, 4, 8), torch.arange(4) % 3
    for sample in (None, x):  # no sample, or one in which two axes could be the batch
        with pytest.raises(InputError, match=rf"^{name}: which axis counts the examples .* \(4, 4, 8\) is not known"):
            transport_free(Encoder(True), build(name, **options), sample=sample)(x)
    net = transport_free(Encoder(False), build(name, **options), sample=x, batch_axis=1)
    step(net, x, target)
    assert gradients(net, "weight")
    with pytest.raises(InputError, match=r"^transport_free: batch_axis must be a whole number from 0 on, got -1"):
        transport_free(Encoder(False), "ia", batch_axis=-1)
    with pytest.raises(InputError, match=r"^batch_axis: 2 is not an axis of"):
        transport_free(Encoder(False), "ia", batch_axis=2)(x)
