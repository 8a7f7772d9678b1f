"""Conversion of any module: what changes, what stays, and what is refused in one clear line."""

import copy
import types

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import converted_share, feedback_parameters, summary, synapses, transport_free
from wtdiag.trainers.layers.place import in_forward_order
from wtdiag.trainers.rules import RULES, rule
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.factored import Factored


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(4, 2, 2),
        nn.Flatten(),
        nn.Linear(50, 5),
    )


def train_step(net: nn.Module, x: Tensor) -> Tensor:
    """One whole step; returns the loss."""
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    output = net(x)
    if not isinstance(output, Tensor):
        output = output[0]
    loss = F.cross_entropy(output, torch.arange(len(x)) % output.shape[1])
    loss.backward()
    optimizer.step()
    return loss.detach()


# Which parameters are feedback


@pytest.mark.parametrize("name", RULES)
def test_feedback_parameters_are_those_of_every_layer_by_name(name):
    net = transport_free(small(), name)
    found = feedback_parameters(net)
    own = [] if name == "bp" else ["feedback_left", "feedback_right"] if name in FACTORED else ["feedback"]
    assert list(found) == [f"{layer}.{key}" for layer in (0, 3, 5) for key in own]
    assert all(found[key] is dict(net.named_parameters())[key] for key in found)
    used = {id(p) for _, layer in synapses(net) for p in layer.parameters_of("feedback")}
    assert name == "bp" or {id(p) for p in found.values()} == used
    assert list(feedback_parameters(nn.DataParallel(net))) == [f"module.{key}" for key in found]


def test_feedback_parameters_that_are_shared_or_pruned():
    native = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    native[2].weight = native[0].weight
    native[1].register_parameter("feedback_of_mine", nn.Parameter(torch.ones(3)))
    net = transport_free(native, "kp")
    prune.l1_unstructured(net[1], "feedback", 0.5)
    prune.l1_unstructured(net[1], "weight", 0.5)
    assert list(feedback_parameters(net)) == ["0.feedback", "1.feedback_orig"]


# What stays


@pytest.mark.parametrize("name", RULES)
def test_outputs_weights_and_keys_stay(name):
    native, x = small(), torch.randn(2, 3, 4, 4)
    before = copy.deepcopy(native.state_dict())
    net = transport_free(native, name, sample=x)
    assert torch.equal(net.eval()(x), native.eval()(x))
    state = net.state_dict()
    assert [key for key in state if "feedback" not in key] == list(before)
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert {key.split("_")[0] for key in state if "feedback" in key} == {"0.feedback", "3.feedback", "5.feedback"}
    for _, layer in synapses(net):
        if not issubclass(RULES[name], Direct):
            assert layer.feedback.shape == layer.weight.shape
        assert layer.learned_feedback.requires_grad is (RULES[name].learned or name == "bp")
        assert layer.feedback.dtype == layer.weight.dtype


@pytest.mark.parametrize("name", RULES)
def test_the_original_is_untouched(name):
    native, x = small(), torch.randn(2, 3, 4, 4)
    twin = copy.deepcopy(native)
    types = [type(module) for module in native.modules()]
    net = transport_free(native, name)
    train_step(net, x)
    assert [type(module) for module in native.modules()] == types
    assert all(torch.equal(a, b) for a, b in zip(native.state_dict().values(), twin.state_dict().values(), strict=True))
    assert all(p.grad is None for p in native.parameters())
    assert native[2].inplace
    assert not native._forward_hooks
    assert not {p.data_ptr() for p in native.parameters()} & {p.data_ptr() for p in net.parameters()}


def test_pretrained_weights_load_into_the_converted_network():
    net = transport_free(small(), "fa")
    torch.manual_seed(9)
    other = small()
    for p in other.parameters():
        p.data.normal_()
    feedback = net[0].feedback.clone()
    missing, unexpected = net.load_state_dict(other.state_dict(), strict=False)
    assert missing == ["0.feedback", "3.feedback", "5.feedback"]
    assert unexpected == []
    assert torch.equal(net[0].weight, other[0].weight)
    assert torch.equal(net[0].feedback, feedback)


def test_sign_rules_follow_loaded_weights_at_the_next_pass():
    net, other = transport_free(small(), "usf"), small()
    other[0].weight.data.normal_()
    net.load_state_dict(other.state_dict(), strict=False)
    train_step(net, torch.randn(2, 3, 4, 4))
    assert torch.equal(net[0].feedback.sign(), other[0].weight.sign())


def test_hooks_stay_and_run():
    seen = []
    native = small()
    native[0].register_forward_hook(lambda module, args, output: seen.append("forward"))
    native[0].register_forward_pre_hook(lambda module, args: seen.append("pre"))
    native[5].register_full_backward_hook(lambda module, grads_in, grads_out: seen.append("backward"))
    native[0].weight.register_hook(lambda grad: grad * 0)
    train_step(transport_free(native, "ia"), torch.randn(2, 3, 4, 4))
    assert seen == ["pre", "forward", "backward"]


def test_device_dtype_and_frozen_weights_stay():
    native = small().to(torch.bfloat16)
    native[0].weight.requires_grad_(False)
    net = transport_free(native, "ia")
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
    assert not net[0].weight.requires_grad
    assert net[0].feedback.requires_grad
    shape = transport_free(nn.Linear(3, 2, device="meta"), "kp").feedback
    assert shape.is_meta


@pytest.mark.parametrize("name", ["fa", "kp", "dfa"])
def test_a_shared_module_stays_one(name):
    shared = nn.Linear(4, 4)
    net = transport_free(nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 3)), name)
    assert net[0] is net[2]
    assert [key for key, _ in synapses(net)] == ["0", "3"]
    train_step(net, torch.randn(5, 4))


@pytest.mark.parametrize("name", ["bp", "usf", "ia"])
def test_tied_parameters_stay_tied_and_share_their_feedback(name):
    native = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    native[2].weight = native[0].weight
    net = transport_free(native, name)
    assert net[2].weight is net[0].weight
    assert net[2].feedback is net[0].feedback
    assert net[1].feedback is not net[0].feedback
    train_step(net, torch.randn(5, 4))


def test_weights_tied_to_an_embedding_stay_tied():
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.body(self.embed(tokens)))

    net = transport_free(Language(), "kp")
    assert net.head.weight is net.embed.weight
    net(torch.tensor([[1, 2, 3]])).square().mean().backward()
    assert net.embed.weight.grad is not None
    assert net.head.feedback.grad.shape == (7, 4)


# What is converted, what is skipped


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


def test_a_model_that_cannot_be_copied_says_so():
    native = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    native.made = types.SimpleNamespace(weight=native[0].weight * 2)
    with pytest.raises(InputError, match=r"^transport_free: Sequential cannot be copied: .*deepcopy"):
        transport_free(native, "fa")


def test_a_bare_layer_is_called_model():
    net = transport_free(nn.Linear(4, 3), "dfa")
    assert [key for key, _ in synapses(net)] == ["model"]
    train_step(net, torch.randn(5, 4))


def test_a_first_layer_is_marked_as_carrying_no_error():
    net, x = transport_free(small(), "fa"), torch.randn(2, 3, 4, 4)
    train_step(net, x)
    marks = [False, True, True]
    assert [layer.carries_error for _, layer in synapses(net)] == marks
    with torch.no_grad():  # an evaluation says nothing about errors
        net(x)
    assert [layer.carries_error for _, layer in synapses(net)] == marks
    train_step(net, x.requires_grad_())
    assert [layer.carries_error for _, layer in synapses(net)] == [True, True, True]


# Whole networks from torchvision, as small as their classes allow


def convnext() -> nn.Module:
    block = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([block(8, 16, 1), block(16, None, 1)], num_classes=5)


FACTORED = [name for name in RULES if issubclass(RULES[name], Factored)]
TORCHVISION = {
    "resnet": lambda: torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
    "resnext": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, groups=4, width_per_group=4
    ),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25),
    "mobilenet_v3": lambda: torchvision.models.mobilenet_v3_small(num_classes=5, width_mult=0.25),
    "shufflenet_v2": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
    "squeezenet": lambda: torchvision.models.squeezenet1_1(num_classes=5),
    "densenet": lambda: torchvision.models.DenseNet(4, (2, 2), 8, num_classes=5),
    "convnext": convnext,
    "vit": lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=5),
}


@pytest.mark.parametrize(
    ("model", "name"),
    [("resnet", name) for name in RULES]
    + [(model, name) for model in TORCHVISION if model != "resnet" for name in ("ia", "dfa")],
)
def test_torchvision_networks_take_a_step(model, name):
    torch.manual_seed(0)
    native, x = TORCHVISION[model](), torch.randn(2, 3, 32, 32)
    net = transport_free(native, name, sample=x)
    matrices = [p for key, p in native.named_parameters() if p.dim() > 1 and key.endswith("weight")]
    assert len(list(synapses(net))) == len(matrices)
    assert torch.equal(net.eval()(x), native.eval()(x))
    loss = train_step(net.train(), x)
    assert torch.isfinite(loss)
    for key, layer in synapses(net):
        assert layer.weight.grad.isfinite().all(), key
        assert not layer.rule.learned or layer.learned_feedback.grad.isfinite().all(), key


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


def in_place_vgg() -> nn.Module:
    """VGG's own layers at an eighth of its width: in-place activations right after convolutions."""
    features = torchvision.models.vgg.make_layers([8, "M", 16, "M", 32, 32, "M"], batch_norm=False)
    return nn.Sequential(features, nn.Flatten(), nn.Linear(512, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5))


@pytest.mark.parametrize("name", RULES)
def test_in_place_activations_after_a_convolution(name):
    torch.manual_seed(0)
    native = in_place_vgg()
    x = torch.randn(2, 3, 32, 32)
    net = transport_free(native, name, sample=x)
    outputs = "output" in rule(name).shares
    in_place = [module.inplace for module in net.modules() if isinstance(module, nn.ReLU)]
    assert set(in_place) == {not outputs}
    train_step(net, x)
    slow = copy.deepcopy(native)
    for module in slow.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    torch.manual_seed(3)
    reference = transport_free(slow, name, sample=x)
    torch.manual_seed(3)
    again = transport_free(native, name, sample=x)
    for each in (reference, again):
        torch.manual_seed(4)
        train_step(each, x)
    for a, b in zip(reference.parameters(), again.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad)


def test_in_place_functions_that_spoil_an_output_are_named():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(F.relu(self.first(x), inplace=True))

    net = transport_free(Functional(), "ia")
    with pytest.raises(RuntimeError, match=r"^ia: a tensor that the feedback weights learn from was changed in place"):
        train_step(net, torch.randn(5, 4))
    train_step(transport_free(Functional(), "fa"), torch.randn(5, 4))


# Direct feedback


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


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((small(), "faa"), r"^rule: 'faa' is not known; did you mean 'fa'\?"),
        ((small(), 3), r"^transport_free: rule must be a name or a Rule object, got 3$"),
        ((small(), RULES["fa"]), r"^transport_free: rule must be a name or a Rule object, got <class"),
        (("small", "fa"), r"^transport_free: model must be a torch.nn.Module, got str$"),
        (
            (nn.Sequential(nn.ReLU()), "fa"),
            r"^transport_free: Sequential has no layer to convert; known: .*Linear.*Conv1d",
        ),
        ((transport_free(small(), "fa"), "ia"), r"^transport_free: the model is converted already"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        transport_free(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": rule("fa"), "scale": 2.0}, r"^transport_free: coefficients scale need the rule's name"),
        ({"rule": "dfa", "classes": 0}, r"^transport_free: classes must be a positive whole number, got 0$"),
        ({"rule": "dfa", "classes": 2.5}, r"^transport_free: classes must be a positive whole number, got 2.5$"),
        ({"rule": "ia", "ampp": 2.0}, r"^coefficient of ia: 'ampp' is not known; did you mean 'amp'\?"),
        ({"rule": "ia", "amp": "x"}, r"^ia: amp: expected a finite number, got 'x'$"),
        ({"rule": "fa", "sample": 3}, r"^transport_free: sample must be a batch of inputs, got int$"),
        ({"rule": "fa", "sample": {}}, r"^transport_free: sample must be a batch of inputs, got dict$"),
        (
            {"rule": "fa", "sample": torch.ones(2, 99)},
            r"^transport_free: sample: the network cannot take it \(RuntimeErr",
        ),
        (
            {"rule": "fa", "sample": {"z": torch.ones(2)}},
            r"^transport_free: sample: the network cannot take it \(TypeErr",
        ),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        transport_free(small(), **options)


@pytest.mark.parametrize("name", ["fa", "dfa"])
def test_a_sample_may_hold_inputs_by_name(name):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, words, mask):
            return {"logits": self.head(torch.tanh(self.body(words * mask)).mean(1))}

    torch.manual_seed(0)
    sample = {"words": torch.randn(7, 6, 4), "mask": torch.ones(7, 6, 1)}
    net = transport_free(Named(), name, sample=sample)
    assert [layer.carries_error for _, layer in synapses(net)] == [False, True]
    net(**sample)["logits"].sum().backward()
    assert net.body.weight.grad.norm() > 0


@pytest.mark.parametrize("options", [{}, {"centre": "batch"}, {"centre": "examples"}])
@pytest.mark.parametrize("name", [name for name in RULES if not issubclass(RULES[name], Direct)])
def test_an_input_without_a_batch_is_one_example(name, options):
    try:
        rule(name, **options)
    except InputError:
        pytest.skip("it has no such option")
    found = []
    for x in (torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 4)[None]):
        torch.manual_seed(0)
        net = transport_free(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), name, **options)
        torch.manual_seed(1)
        net(x).square().sum().backward()
        found.append({key: p.grad for key, p in net.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*found)


class HeadFirst(nn.Module):
    """Declares its layers in another order than it uses them."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(5, 3), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.body(x).relu())


@pytest.mark.parametrize("rule", ["fa", "dfa"])
def test_layers_are_ordered_as_they_run(rule):
    model = transport_free(HeadFirst(), rule, sample=torch.zeros(2, 4))
    assert [name for name, _ in in_forward_order(synapses(model))] == ["body", "head"]
    assert not model.body.carries_error
    assert model.head.carries_error
    if rule == "dfa":
        assert model.head.feedback.shape == (3, 5)
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())


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
