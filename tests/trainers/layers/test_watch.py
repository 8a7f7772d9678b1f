"""Layers that the model goes past: skipped or named, and no false alarm where there is nothing wrong."""

import copy
import pickle
import types
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import feedback_parameters, summary, transport_free
from wtdiag.trainers.layers.revert import revert
from wtdiag.trainers.record.recorder import Recorder

X, Y = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3


def network(first="linear"):
    """Return a network and the layer in it whose forward is to be set."""
    torch.manual_seed(0)
    body = nn.Linear(6, 6) if first == "linear" else nn.Conv1d(1, 1, 3, padding=1)
    shape = (6,) if first == "linear" else (1, 6)
    return nn.Sequential(nn.Linear(6, 6), nn.Unflatten(1, shape), body, nn.Flatten(), nn.Tanh(), nn.Linear(6, 3))


def native(layer, x):
    return F.linear(x, layer.weight, layer.bias) if layer.weight.dim() == 2 else F.conv1d(x, layer.weight, padding=1)


PAST = {
    "method": lambda layer: types.MethodType(native, layer),
    "lambda": lambda layer: lambda x: native(layer, x),
    "partial": lambda layer: partial(native, layer),
}
THROUGH = {
    "checkpoint": lambda layer: partial(checkpoint, layer.forward, use_reentrant=False),
    "wrapper": lambda layer: lambda x, forward=layer.forward: forward(x),
}


def step(net, x=X):
    F.cross_entropy(net(x), Y).backward()


def through_b(net):
    """Whether the error of the first layer came through the feedback of the middle one, and not through its weight."""
    names = [net[0].weight.grad.clone()]
    for matrix in (net[2].feedback, net[2].weight):
        twin = copy.deepcopy(net)
        vars(twin[2]).pop("forward", None)
        with torch.no_grad():
            twin[2].feedback.copy_(matrix)
        twin.zero_grad()
        step(twin)
        names.append(twin[0].weight.grad)
    return torch.allclose(names[0], names[1]) and not torch.allclose(names[0], names[2])


@pytest.mark.parametrize("how", [*PAST, *THROUGH])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_forward_set_before_conversion_is_skipped(kind, how):
    model = network(kind)
    model[2].forward = (PAST | THROUGH)[how](model[2])
    net = transport_free(model, "fa")
    assert [(row.name, row.reason) for row in summary(net).skipped] == [
        ("2", "its forward is set on the instance, and may compute in its own way")
    ]
    step(net)
    assert list(feedback_parameters(net)) == ["0.feedback", "5.feedback"]


@pytest.mark.parametrize("sample", [None, X])
@pytest.mark.parametrize("how", PAST)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_forward_set_after_conversion_that_goes_past_the_feedback_is_named(kind, how, sample):
    net = transport_free(network(kind), "fa", sample=sample)
    net[2].forward = PAST[how](net[2])
    assert [row.name for row in summary(net).skipped] == ["2"]
    with pytest.warns(UserWarning, match=r"^transport_free: 2: converted, but still learning by backprop: ") as caught:
        step(net)
    assert len(caught) == 1
    assert [row.name for row in summary(net).skipped] == ["2"]
    assert [name for name, *_ in summary(net).converted] == ["0", "5"]
    step(net)


@pytest.mark.parametrize("reentrant", [None, False, True])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_hook_that_replaces_the_output_by_one_past_the_feedback_is_named(kind, reentrant):
    net = transport_free(network(kind), "fa")
    net[2].register_forward_hook(lambda layer, inputs, output: native(layer, inputs[0]))
    run = net if reentrant is None else partial(checkpoint, net, use_reentrant=reentrant)
    with pytest.warns(UserWarning, match=r"^transport_free: 2: converted, but still .* a hook replaces its output"):
        step(run, X.clone().requires_grad_())
    assert [row.name for row in summary(net).skipped] == ["2"]
    assert [name for name, *_ in summary(net).converted] == ["0", "5"]


def test_a_hook_that_changes_the_output_on_its_way_is_right():
    net = transport_free(network(), "fa")
    net[2].register_forward_hook(lambda layer, inputs, output: 2 * output)
    step(net)
    assert through_b(net)
    assert not summary(net).skipped


@pytest.mark.parametrize("how", THROUGH)
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_forward_set_after_conversion_that_uses_the_feedback_is_right(kind, how):
    net = transport_free(network(kind), "fa")
    net[2].forward = THROUGH[how](net[2])
    assert "has not used the feedback so far" in summary(net).skipped[0].reason
    step(net)
    assert through_b(net)
    assert not summary(net).skipped


def test_a_forward_set_amid_training_is_doubted_until_it_uses_the_feedback():
    net = transport_free(network(), "fa")
    step(net)
    assert not summary(net).skipped
    net[2].forward = PAST["lambda"](net[2])
    step(net)
    assert [row.name for row in summary(net).skipped] == ["2"]


def test_what_backprop_carries_anyway_is_no_news():
    net = transport_free(network(), "bp")
    net[2].forward = PAST["lambda"](net[2])
    step(net)
    assert not summary(net).skipped


def called(layer, x):
    return layer(x)


class Parts(nn.Module):
    """A network some of whose parts a pass may leave out."""

    def __init__(self):
        super().__init__()
        self.words, self.body, self.other, self.head = (
            nn.Embedding(3, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3, bias=False),
        )  # fmt: skip
        self.head.weight = self.words.weight
        self.wraps = called

    def forward(self, x):
        return self.head(self.wraps(self.body, x).tanh())


def frozen(net):
    net.body.requires_grad_(False)


def reentrant(net):
    net.wraps = partial(checkpoint, use_reentrant=True)


def not_reentrant(net):
    net.wraps = partial(checkpoint, use_reentrant=False)


def in_place(net):
    net.compile(backend="aot_eager", fullgraph=True)


@pytest.mark.parametrize("name", ["fa", "kp", "usf", "dfa"])
@pytest.mark.parametrize("how", [frozen, reentrant, not_reentrant, in_place, lambda net: net.other(X), copy.deepcopy])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own
def test_no_false_alarm(how, name):
    if how is reentrant and name in ("dfa", "drtp"):
        pytest.skip("refused, see test_ecosystem")
    torch._dynamo.reset()
    net = transport_free(Parts(), name, classes=3)
    how(net)
    step(net, X.clone().requires_grad_())
    net.words(Y).square().sum().backward()  # the embedding's own gradient, in a pass without the head
    net.other(X).sum().backward() if name not in ("dfa", "drtp") else None
    pickle.loads(pickle.dumps(net)) if how is frozen else None


def test_no_false_alarm_in_a_pass_that_reaches_a_tied_weight_elsewhere():
    net = transport_free(Parts(), "fa")
    net.words(Y).square().sum().backward()
    assert not [row for row in summary(net).skipped if row.kind == "Linear"]


def test_alarm_under_compilation():
    torch._dynamo.reset()
    net = transport_free(network(), "fa")
    net[2].forward = PAST["method"](net[2])
    with pytest.warns(UserWarning, match=r"^transport_free: 2: converted, but still learning by backprop: "):
        step(torch.compile(net, backend="aot_eager"))


def test_alarm_and_no_false_alarm_in_distributed_training(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        step(DistributedDataParallel(transport_free(network(), "kp")))
        net = transport_free(network(), "fa")
        net[2].forward = PAST["partial"](net[2])
        parallel = DistributedDataParallel(net)
        with pytest.warns(UserWarning, match=r"^transport_free: 2: converted, but still learning by backprop: "):
            step(parallel)
    finally:
        torch.distributed.destroy_process_group()


def test_replicas_tell_their_layer_what_they_saw():
    """As DataParallel makes them, with a layer's own dictionary copied."""
    net = transport_free(nn.Linear(6, 3), "fa")
    replica = net._replicate_for_data_parallel()
    replica.weight, replica.bias, replica.feedback = net.weight * 1, net.bias * 1, net.feedback
    step(replica)
    assert net.place.used
    assert net.weight.grad is not None


class Tied(nn.Module):
    """An autoencoder whose decoder is the transposed weight of its encoder, with a penalty if it is to have one."""

    def __init__(self, decode):
        super().__init__()
        self.encode, self.decode, self.rest = nn.Linear(6, 4), decode, nn.Linear(6, 3)

    def forward(self, x):
        code = torch.tanh(self.encode(x))
        return self.rest(self.decode(self.encode, code))


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("rule", ["fa", "kp", "dfa", "usf"])
def test_a_weight_that_is_used_beside_its_calls_is_named_in_the_first_pass(rule, copied):
    net = transport_free(Tied(lambda layer, code: F.linear(code, layer.weight.t())), rule, sample=X)
    net = copy.deepcopy(net) if copied else net
    with pytest.warns(UserWarning, match="^transport_free: encode: the model also uses the weight without calling the"):
        step(net)
    step(net)  # and nothing more is said
    assert [(row.name, row.reason) for row in summary(net).skipped] == [
        ("encode", "only where the model uses its weight without calling it")
    ]
    assert "encode" in [name for name, *_ in summary(net).converted]


DECODERS = {
    "none": lambda layer, code: F.pad(code, (0, 2)),
    "shared": lambda layer, code: F.linear(code, layer.shared_weight().detach().t()),
    "no gradient": lambda layer, code: F.linear(code, layer.weight.detach().t()),
}


@pytest.mark.parametrize("rule", ["bp", "fa", "kp", "pfa", "ia"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_no_false_alarm_of_a_use_beside_the_calls(rule, decoder):
    net = transport_free(Tied(DECODERS[decoder]), rule)
    step(net)
    assert summary(net).skipped == []
    assert not net._forward_hooks


def test_no_false_alarm_in_modules_that_take_their_weights_apart():
    attention = nn.TransformerDecoderLayer(6, 2, 8, dropout=0.0)
    net = transport_free(attention, "fa", batch_axis=1)
    net(X[:, None], X[:, None]).sum().backward()
    assert summary(net).skipped == []
    assert not revert(transport_free(attention, "fa"))._forward_hooks


@pytest.mark.parametrize("how", ["copied", "pickled", "assigned"])
def test_recording_watches_again_a_model_that_lost_its_watch(tmp_path, how):
    model = transport_free(network(), "fa")
    if how == "copied":
        model = copy.deepcopy(model)
    elif how == "pickled":
        model = pickle.loads(pickle.dumps(model))
    else:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(state, assign=True)
    model[0].forward = types.MethodType(native, model[0])
    with Recorder(model, tmp_path / "run") as recorder:
        with pytest.warns(UserWarning, match=r"transport_free: 0: converted, but still learning by backprop"):
            F.cross_entropy(model(X), Y).backward()
        recorder.snapshot(0)
    assert "feedback" in str(summary(model))


def test_a_model_without_a_layer_to_convert_says_why():
    model = nn.Sequential(nn.Linear(6, 3))
    model[0].forward = types.MethodType(native, model[0])
    with pytest.raises(InputError, match=r"no layer to convert; known: .*; 0: its forward is set on the instance"):
        transport_free(model, "fa")
