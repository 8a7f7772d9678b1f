"""Direct feedback: its sizes, which a sample or the first batch tells, and what it refuses."""

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.layers.mixed_network import small, train_step
from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import synapses, transport_free


def test_direct_feedback_is_sized_by_a_sample_or_by_the_first_batch():
    x = torch.randn(2, 3, 4, 4)
    native = small()
    states = torch.get_rng_state()
    net = transport_free(native, "dfa", sample=x)
    assert [tuple(layer.feedback.shape) for _, layer in synapses(net)] == [(5, 3, 4, 4), (5, 4, 4, 4), (5, 50)]
    assert net.training
    assert torch.equal(net[1].running_mean, native[1].running_mean)
    assert net[1].num_batches_tracked == 0
    torch.set_rng_state(states)
    late = transport_free(native, "dfa")
    assert isinstance(late[0].feedback, nn.parameter.UninitializedParameter)
    identity = late[0].feedback
    train_step(late, x)
    assert late[0].feedback is identity
    assert [layer.feedback.shape for _, layer in synapses(late)] == [layer.feedback.shape for _, layer in synapses(net)]


def test_state_dict_round_trip_before_and_after_sizing():
    x = torch.randn(2, 3, 4, 4)
    net, other = transport_free(small(), "dfa"), transport_free(small(), "dfa")
    assert "0.feedback" not in net.state_dict()
    assert "5.feedback" in net.state_dict()
    other.load_state_dict(net.state_dict())
    train_step(net, x)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other[0].feedback, net[0].feedback)
    other.load_state_dict({key: value.clone() for key, value in net.state_dict().items()}, assign=True)
    assert torch.equal(other[3].feedback, net[3].feedback)
    net.load_state_dict(transport_free(small(), "dfa").state_dict(), strict=False)


def test_direct_feedback_refuses_what_it_cannot_serve():
    x = torch.randn(2, 3, 4, 4)
    with pytest.raises(InputError, match=r"layers saw \[\(2, 7\)\], outputs are \[\(2, 5\)\]"):
        train_step(transport_free(small(), "dfa", classes=7), x)

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.each, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            windows = self.each(self.first(x).reshape(-1, 4))
            return self.head(windows.reshape(len(x), -1, 4).mean(1))

    with pytest.raises(InputError, match=r"every layer must see the whole batch .* layers saw \[\(2, 5\), \(24, 5\)\]"):
        train_step(transport_free(Windows(), "dfa", batch_axis=0), x)

    net = transport_free(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)), "dfa", sample=x
    )
    bigger = torch.randn(2, 3, 6, 6)
    with pytest.raises(InputError, match=r"^dfa: the feedback of a convolution fits inputs of shape \(3, 4, 4\)"):
        train_step(net, bigger)
    with torch.no_grad():
        assert net(bigger).shape == (2, 5)


def test_direct_feedback_finds_the_output_among_several():
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> dict[str, object]:
            h = self.body(x).tanh()
            return {"hidden": h, "logits": self.head(h), "note": "text"}

    net = transport_free(Several(), "dfa", classes=3)
    x = torch.randn(5, 4)
    out = net(x)
    assert out["note"] == "text"
    out["logits"].square().sum().backward()
    error = 2 * out["logits"].detach()
    h = out["hidden"].detach()
    delta = (error @ net.head.feedback) * (1 - h**2)
    torch.testing.assert_close(net.body.weight.grad, delta.T @ x)
