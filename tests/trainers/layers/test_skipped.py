"""Which layers of a network are converted, which are skipped, and why."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.trainers.layers.mixed_network import train_step
from wtdiag.trainers.layers.convert import converted_share, summary, synapses, transport_free


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


class Renamed(nn.MultiheadAttention):
    """A user's own attention."""


@pytest.mark.parametrize(
    ("module", "skipped"),
    [
        (lambda: Doubled(4, 4), {"Doubled": "a subclass of Linear may compute in its own way"}),
        (lambda: nn.Embedding(9, 4), {"Embedding": "no feedback form for this type"}),
        (
            lambda: Renamed(4, 2),
            {
                "Renamed": "a subclass of MultiheadAttention may compute in its own way",
                "NonDynamicallyQuantizableLinear": "a subclass of Linear may compute in its own way",
            },
        ),
        (lambda: nn.LazyLinear(4), {"LazyLinear": "lazy: run one batch before converting"}),
        (lambda: nn.LazyConv2d(4, 3), {"LazyConv2d": "lazy: run one batch before converting"}),
        (
            lambda: parametrizations.orthogonal(Doubled(4, 4)),
            {"ParametrizedDoubled": "a subclass of Linear may compute in its own way"},
        ),
        (
            lambda: parametrizations.weight_norm(nn.Embedding(4, 4)),
            {
                "ParametrizedEmbedding": "its weight is computed from others (parametrization), "
                "and its type has no feedback form"
            },
        ),
        (lambda: nn.Linear(4, 4, dtype=torch.complex64), {"Linear": "its weight is not real floating point"}),
        (lambda: nn.BatchNorm2d(4), {}),
        (lambda: nn.LayerNorm(4), {}),
    ],
)
@pytest.mark.parametrize("name", ["fa", "ia", "dfa"])
def test_what_has_no_feedback_is_skipped_with_its_reason(name, module, skipped):
    native = nn.Sequential(module(), nn.Linear(4, 3))
    net = transport_free(native, name)
    table = summary(net)
    assert {row.kind: row.reason for row in table.skipped} == skipped
    assert [key for key, *_ in table.converted] == ["1"]
    assert type(net[0]) is type(native[0]) or "Parametrized" in type(net[0]).__name__
    for kind, reason in skipped.items():
        assert f"{kind} " in str(table)
        assert reason in str(table)


def test_an_empty_layer_is_skipped():
    empty = nn.Linear(3, 1)
    empty.weight = nn.Parameter(torch.empty(0, 3))
    net = transport_free(nn.Sequential(empty, nn.Linear(4, 3)), "fa")
    assert [row.reason for row in summary(net).skipped] == ["its weight is empty"]


def test_a_lazy_layer_converts_after_its_first_batch():
    native = nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(3))
    native(torch.ones(2, 5))
    assert [shape for *_, shape in summary(transport_free(native, "fa")).converted] == [(4, 5), (3, 4)]


def test_layers_that_came_after_the_conversion_are_named():
    net = transport_free(nn.Sequential(nn.Linear(5, 4), nn.LazyLinear(3)), "fa")
    net(torch.ones(2, 5))
    net.append(nn.Linear(3, 3))
    reason = "it was not there, or had no size yet, when the network was converted"
    assert [(row.name, row.reason) for row in summary(net).skipped] == [("1", reason), ("2", reason)]


def test_a_bare_layer_is_called_model():
    net = transport_free(nn.Linear(4, 3), "dfa")
    assert [key for key, _ in synapses(net)] == ["model"]
    train_step(net, torch.randn(5, 4))


class Uncalled(nn.Module):
    """Uses the weight of a layer without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(x, self.body.weight).tanh())


def test_weights_used_without_calling_their_layer_keep_backprop():
    net = transport_free(Uncalled(), "ia")
    with pytest.warns(UserWarning, match=r"^transport_free: body: converted, but still learning by"):
        train_step(net, torch.randn(2, 4))
    assert net.body.feedback.grad is None
    assert [row.name for row in summary(net).skipped if "bypasses its feedback" in row.reason] == ["body"]
    assert converted_share(net) == 12 / 28
    train_step(net, torch.randn(2, 4))  # and nothing more is said


class Recurrent(nn.Module):
    """A recurrent network."""

    def __init__(self):
        super().__init__()
        self.cell, self.readout = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        return self.readout(self.cell(x)[0][:, -1])


def test_converted_share_counts_the_entries_of_matrices():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10))
    for name in ("bp", "fa", "kp", "usf"):
        assert converted_share(transport_free(net, name)) == 1.0
    assert converted_share(transport_free(Recurrent(), "fa")) == 1.0
    words = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 2))
    assert converted_share(transport_free(words, "fa")) == 8 / 32
    tied = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6, bias=False))
    tied[1].weight = tied[0].weight
    assert converted_share(transport_free(tied, "fa")) == 1.0  # one matrix, counted once
