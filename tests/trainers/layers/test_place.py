"""The forward order of layers, whichever pass came first."""

import copy
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.layers.place import in_forward_order
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.workflow import analyze

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


class Backwards(nn.Module):
    """Four layers, registered from the last to the first."""

    def __init__(self):
        super().__init__()
        self.head, self.third, self.second, self.first = (
            nn.Linear(5, 3),
            nn.Linear(5, 5),
            nn.Linear(5, 5),
            nn.Linear(4, 5),
        )

    def encode(self, x):
        return self.second(self.first(x).tanh()).tanh()

    def decode(self, z):
        return self.head(self.third(z).tanh())

    def forward(self, x):
        return self.decode(self.encode(x))


ORDER = ["first", "second", "third", "head"]


def build(rule="fa"):
    torch.manual_seed(0)
    return transport_free(Backwards(), rule, classes=3)


def names(net):
    return [name for name, _ in in_forward_order(synapses(net))]


def step(net):
    net.zero_grad()
    F.cross_entropy(net(X), Y).backward()


@torch.no_grad()
def sample_without_gradients(net):
    net.decode(torch.ones(2, 5))


def sample(net):
    for _ in range(3):
        net.decode(torch.ones(2, 5))


def sample_what_is_learned(net):
    net.decode(nn.Parameter(torch.ones(2, 5)).tanh())


def sample_and_learn(net):
    net.decode(torch.ones(2, 5)).sum().backward()


def encode(net):
    net.encode(X)


FIRST = [sample_without_gradients, sample, sample_what_is_learned, sample_and_learn, encode, lambda net: None]


@pytest.mark.parametrize("rule", ["fa", "usf", "kp", "bp"])
@pytest.mark.parametrize("before", FIRST)
def test_parts_of_a_network_that_run_alone_do_not_spoil_the_order(before, rule):
    net = build(rule)
    before(net)
    for _ in range(2):
        step(net)
    assert names(net) == ORDER
    before(net)
    assert names(net) == ORDER


@pytest.mark.parametrize("before", [sample_without_gradients, sample])
def test_order_under_compilation_from_the_start(before):
    torch._dynamo.reset()
    net = build()
    before(net)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    step(compiled)
    F.cross_entropy(compiled(X[:5]), Y[:5]).backward()  # traced again, with other sizes
    assert names(net) == ORDER


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own
def test_order_where_a_part_alone_is_compiled():
    torch._dynamo.reset()
    net = build()
    net.second.compile(backend="aot_eager")
    net.third.compile(backend="aot_eager")
    step(net)
    F.cross_entropy(net(X[:5]), Y[:5]).backward()
    assert names(net) == ORDER
    again = copy.deepcopy(net)
    again.second.compile(backend="aot_eager")
    step(again)
    assert names(again) == ORDER


def test_order_after_an_evaluation_of_a_transformer_which_takes_no_fast_path():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.embed = nn.Linear(8, 3), nn.Linear(4, 8)
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x):
            return self.head(self.body(self.embed(x)).mean(1))

    net = transport_free(Encoder(), "fa")
    net.eval()
    with torch.no_grad():
        net(X[:, None])
    parts = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
    inner = [f"body.layers.{number}.{part}" for number in (0, 1) for part in parts]
    assert names(net) == ["embed", *inner, "head"]
    net.train()
    F.cross_entropy(net(X[:, None]), Y).backward()
    assert names(net) == ["embed", *inner, "head"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_order_under_checkpointing(reentrant):
    net = build()
    third = net.third.forward
    net.third.forward = partial(checkpoint, third, use_reentrant=reentrant)
    step(net)
    step(net)
    assert names(net) == ORDER


def test_order_of_adversaries():
    """The generator runs without gradients while the discriminator learns first."""
    net = nn.ModuleDict({"judge": nn.Linear(4, 1), "second": nn.Linear(5, 4), "first": nn.Linear(2, 5)})
    net = transport_free(net, "fa")
    z = torch.randn(6, 2)

    def make():
        return net["second"](net["first"](z).tanh())

    def learn():
        for _ in range(2):
            with torch.no_grad():
                fake = make()
            (net["judge"](X) - net["judge"](fake)).mean().backward()
            net["judge"](make()).mean().backward()
        (net["judge"](X)).mean().backward()

    net["judge"](X).mean().backward()
    learn()
    assert names(net) == ["first", "second", "judge"]


def test_layers_that_are_used_twice_stand_where_they_first_ran():
    shared, other = nn.Linear(4, 4), nn.Linear(4, 4)
    net = transport_free(nn.Sequential(shared, nn.Tanh(), other, nn.Tanh(), shared, nn.Linear(4, 3)), "fa")
    step(net)
    step(net)
    assert names(net) == ["0", "2", "5"]


def test_parallel_branches_stand_as_they_ran():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.a, self.end = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.end(self.a(x) + self.b(x))

    net = transport_free(Branches(), "fa")
    step(net)
    assert names(net) == ["a", "b", "end"]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_keep_the_order(again):
    net = build()
    step(net)
    twin = again(net)
    assert names(twin) == ORDER
    assert not {layer.place.key for _, layer in synapses(twin)} & {layer.place.key for _, layer in synapses(net)}
    step(twin)
    assert names(twin) == ORDER


def test_layers_that_have_not_run_come_last():
    net = build()
    assert names(net) == ORDER[::-1]
    sample(net)
    assert names(net) == ["third", "head", "second", "first"]


@pytest.mark.parametrize("rule", ["fa", "dfa"])
@pytest.mark.parametrize("first", ["compiled", "sampled"])
def test_angles_of_a_run_whose_first_pass_was_no_plain_one(first, rule, tmp_path):
    torch._dynamo.reset()
    net = build(rule)
    if first == "sampled" and rule == "fa":
        sample(net)
    with Recorder(net, tmp_path / "run", probe_batch=(X, Y)) as recorder:
        with warnings.catch_warnings(action="ignore"):
            step(torch.compile(net, backend="aot_eager") if first == "compiled" else net)
        recorder.snapshot(1)
    analysis = analyze(tmp_path / "run", model=net).isel(step=0)
    assert analysis.layer.values.tolist() == ORDER
    signals = error_signals(net, X, Y)

    def cosine(layer, first="sent", second="sent_local"):
        a, b = signals[layer][first].ravel(), signals[layer][second].ravel()
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    if rule == "dfa":
        assert analysis.direct.values.tolist() == [True, True, True, False]
        assert np.isfinite(analysis.weight_angle.values[-1])
        assert analysis.error_angle_product.values[-1] == 0
        return
    cosines = [cosine(layer) for layer in ORDER[1:]]
    product = [np.prod(cosines), np.prod(cosines[1:]), cosines[2], 1.0]
    np.testing.assert_allclose(analysis.error_angle_product, np.degrees(np.arccos(product)), rtol=1e-4)
