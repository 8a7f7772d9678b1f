"""A recorded network comes back exactly as it was, for every rule."""

import pytest
import torch
from torch import nn

from probes.errors import InputError
from trainers.convert import transport_free
from trainers.fit import Training
from trainers.network import open_run
from trainers.recorder import Recorder
from trainers.rules import RULES
from trainers.settings import Settings


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_the_last_snapshot_is_the_trained_network(rule, precision, tmp_path):
    settings = Settings(rule=rule, epochs=0.2, width=8, depth=3, snapshots=2, precision=precision)
    training = Training(settings, tmp_path / "run")
    for _ in training:
        pass
    run = open_run(tmp_path / "run")
    twin = run.model(int(run.steps[-1]))
    expected = training.model.state_dict()
    for key, value in twin.state_dict().items():
        if rule in ("usf", "frsf", "brsf") and key.endswith("feedback"):
            assert torch.equal(value.sign(), twin.state_dict()[key.replace("feedback", "weight")].sign())
            assert torch.equal(value.abs(), expected[key].abs())
        else:
            assert torch.equal(value, expected[key]), key
    x, y = run.probe_batch()
    assert len(x) == len(y) == settings.probe_size
    assert x.dtype == (torch.float64 if precision == "float64" else torch.float32)


def test_a_network_of_ones_own_is_given_back(tmp_path):
    torch.manual_seed(0)
    net = transport_free(nn.Linear(4, 3), "kp")
    with Recorder(net, tmp_path / "run") as recorder:
        recorder.snapshot(0)
    run = open_run(tmp_path / "run")
    with pytest.raises(InputError, match="give model="):
        run.model(0)
    torch.manual_seed(1)
    twin = run.model(0, transport_free(nn.Linear(4, 3), "kp"))
    assert torch.equal(twin.weight, net.weight)
    assert torch.equal(twin.feedback, net.feedback)
    with pytest.raises(InputError, match="does not fit the network"):
        run.model(0, transport_free(nn.Linear(4, 3, bias=False), "kp"))
    with pytest.raises(InputError, match=r"'weight' is \(3, 4\), not \(3, 5\)"):
        run.model(0, transport_free(nn.Linear(5, 3), "kp"))
    with pytest.raises(InputError, match="there is no snapshot of step 7"):
        run.model(7, net)
