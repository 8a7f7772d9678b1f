"""What every rule of the registry must do, and what the theory says of each."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.probes.errors import InputError
from wtdiag.trainers.conformance.subject import NETWORKS, convolutional
from wtdiag.trainers.layers.convert import feedback_parameters, set_rule, synapses, transport_free
from wtdiag.trainers.rules import RULES, Rule, rule
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.factored import Factored
from wtdiag.trainers.rules.perturbed import Perturbed
from wtdiag.trainers.rules.primitives import PRIMITIVES

LEARNED = [name for name in RULES if RULES[name].learned]
FIXED = [name for name in RULES if not RULES[name].learned and not RULES[name].transports]
SHARING = [name for name in LEARNED if "weight_grad" in RULES[name]().shares]
FACTORED = [name for name in RULES if issubclass(RULES[name], Factored)]
TIED = [name for name in RULES if RULES[name].tied]
DIRECT = [name for name in RULES if issubclass(RULES[name], Direct)]
PERTURBED = [name for name in RULES if issubclass(RULES[name], Perturbed)]
SUM = {"amp": 0.07, "null": 0.03, "decay": 0.02, "sparse": 0.05, "self": 0.04}


def build(name: str, **coefficients) -> Rule:
    return rule(name, **((SUM if name == "sum" else {}) | coefficients))


def network(kind: str, name: str, **coefficients) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[kind]
    native, x = make().double(), torch.randn(shape, dtype=torch.float64)
    return transport_free(native, build(name, **coefficients), sample=x), x, torch.arange(len(x)) % 3


def step(net: nn.Module, x: Tensor, target: Tensor, seed: int = 1) -> None:
    torch.manual_seed(seed)
    F.cross_entropy(net(x), target).backward()


def gradients(net: nn.Module, which: str) -> dict[str, Tensor]:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None and name.endswith(which)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# What a rule is


def test_all_rules_of_the_toolkit_are_registered():
    assert next(iter(RULES)) == "bp"
    known = "bp brsf dfa drtp fa frsf usf aa ia kp sa sum wm wm-reg"
    assert set(known.split()) <= set(RULES)


@pytest.mark.parametrize(
    ("name", "coefficients", "message"),
    [
        ("faa", {}, r"^rule: 'faa' is not known; did you mean 'fa'\? Choices: bp, .*wm-reg$"),
        ("ia", {"amb": 1.0}, r"^coefficient of ia: 'amb' is not known; did you mean 'amp'\? Choices: .*null"),
        ("ia", {"sparse": 1.0}, r"^coefficient of ia: 'sparse' is not known"),
        ("bp", {"decay": 1.0}, r"^bp: has no coefficients, got 'decay'$"),
        ("ia", {"amp": "1"}, r"^ia: amp: expected a finite number, got '1'$"),
        ("ia", {"null": math.nan}, r"^ia: null: expected a finite number, got nan$"),
        ("kp", {"decay": None}, r"^kp: decay: expected a finite number, got None$"),
        ("kp", {"decay": True}, r"^kp: decay: expected a finite number, got True$"),
        ("fa", {"scale": 0}, r"^fa: scale: expected a positive number, got 0$"),
        ("fa", {"soft": 1.5}, r"^fa: soft: expected a number from 0 to 1, got 1.5$"),
        ("fa", {"soft": math.nan}, r"^fa: soft: expected a finite number, got nan$"),
        ("dfa", {"scale": -1.0}, r"^dfa: scale: expected a positive number, got -1.0$"),
        ("wm", {"noise_std": math.inf}, r"^wm: noise_std: expected a finite number, got inf$"),
        ("wm", {"noise": "gauss"}, r"^wm: noise: 'gauss' is not known. Choices: normal, uniform$"),
        ("aa", {"inputs": "noises"}, r"^aa: inputs: 'noises' is not known; did you mean 'noise'\?"),
        ("aa", {"reduction": "max"}, r"^aa: reduction: 'max' is not known. Choices: mean, sum$"),
    ],
)
def test_wrong_coefficients_are_named(name, coefficients, message):
    with pytest.raises(InputError, match=message):
        rule(name, **coefficients)


# Whole networks against formulas written out


def written_out(name: str, net: nn.Module, x: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """Gradients of the three-layer perceptron under cross-entropy, in numpy."""
    layers = [layer for _, layer in synapses(net)]
    w = [layer.weight.detach().numpy() for layer in layers]
    b = [layer.feedback.detach().numpy() for layer in layers]
    h, n = [x.numpy()], len(x)
    for i, layer in enumerate(layers):
        z = h[-1] @ w[i].T + layer.bias.detach().numpy()
        h.append(np.tanh(z) if i < 2 else z)
    p = np.exp(h[3]) / np.exp(h[3]).sum(1, keepdims=True)
    onehot = np.eye(3)[target.numpy()]
    error = (p - onehot) / n
    delta, out = error, {}
    for i in (2, 1, 0):
        out[f"{2 * i}.weight"] = delta.T @ h[i]
        out[f"{2 * i}.bias"] = delta.sum(0)
        if name in FACTORED:
            p, r = (f.detach().numpy() for f in (net[2 * i].feedback_left, net[2 * i].feedback_right))
            decay, narrow = net[2 * i].rule.decay, delta @ p
            out[f"{2 * i}.feedback_right"] = narrow.T @ h[i] + decay * r
            out[f"{2 * i}.weight"] = out[f"{2 * i}.weight"] + decay * w[i]
            if net[2 * i].rule.learns_left:
                climbed = (delta - narrow @ p.T).T @ narrow
                out[f"{2 * i}.feedback_left"] = -net[2 * i].rule.oja * climbed / np.square(narrow).sum()
        elif name == "kp":
            out[f"{2 * i}.feedback"] = delta.T @ h[i] + net[2 * i].rule.decay * b[i]
            out[f"{2 * i}.weight"] = out[f"{2 * i}.weight"] + net[2 * i].rule.decay * w[i]
        elif name == "dkp":
            out[f"{2 * i}.feedback"] = error.T @ h[i] + net[2 * i].rule.decay * b[i]
        elif name == "np":  # whose noise is zero here
            out[f"{2 * i}.feedback"] = n * delta.T @ (delta @ b[i])
        elif name == "wm-live":
            out[f"{2 * i}.feedback"] = net[2 * i].rule.decay * b[i]
        elif RULES[name].learned:
            y = h[i] @ w[i].T
            terms = {
                "amp": -y.T @ h[i] / n,
                "null": y.T @ y @ b[i] / n,
                "decay": b[i],
                "sparse": b[i] @ h[i].T @ h[i] / n,
                "self": -w[i],
            }
            out[f"{2 * i}.feedback"] = sum(v * terms[k] for k, v in net[2 * i].rule.coefficients.items())
        if i:
            sent = {"dfa": error, "dkp": error, "drtp": -onehot / n}.get(name, delta)
            delta = sent @ b[i] * (1 - h[i] ** 2)
    return out


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("wm", "ldrl")])
def test_network_equals_the_written_out_one(name):
    net, x, target = network("dense", name)
    step(net, x, target)
    expected = written_out(name, net, x, target)
    got = gradients(net, "")
    assert set(got) == set(expected)
    for key in expected:
        np.testing.assert_allclose(got[key].numpy(), expected[key], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", DIRECT)
def test_direct_rules_in_a_convolutional_network(name):
    net, x, target = network("conv", name)
    logits = net(x)
    error = torch.autograd.grad(F.cross_entropy(logits, target), logits, retain_graph=True)[0]
    signal = error if name != "drtp" else -F.one_hot(target, 3).double() / len(x)
    F.cross_entropy(logits, target).backward()
    # The reference: each layer trained alone, by autograd, on the error that is projected to the next one's input.
    segments = ([0, 1], [2, 3, 4], [5, 6], [7])
    reference = native_twin(net)
    h = x
    learned = {}
    for i, segment in enumerate(segments):
        out = h.detach()
        if name == "dkp":  # the error times the activity that B reaches
            b = net[segment[0]].feedback.detach()
            product = torch.einsum("nc,n...->c...", error, h.detach())
            learned[f"{segment[0]}.feedback"] = product / b[0, 0].numel() + net[0].rule.decay * b
        for j in segment:
            out = reference[j](out)
        after = {0: 2, 1: 5, 2: 7}.get(i)
        if after is None:
            out.backward(error)
        else:
            out.backward((signal @ net[after].feedback.flatten(1)).view(out.shape))
        h = out
    expected = gradients(reference, "") | learned
    assert set(gradients(net, "")) == set(expected)
    for key, got in gradients(net, "").items():
        torch.testing.assert_close(got, expected[key], rtol=1e-9, atol=1e-13)


def native_twin(net: nn.Module) -> nn.Module:
    """The native network with the weights of a converted one."""
    native = convolutional().double()
    native.load_state_dict({k: v for k, v in net.state_dict().items() if k in native.state_dict()})
    return native


@pytest.mark.parametrize("name", DIRECT)
def test_direct_rules_say_so_when_only_a_part_is_called(name):
    net, x, target = network("dense", name)
    with pytest.raises(RuntimeError, match=rf"^{name}: the output error never reached a layer; call the converted"):
        F.cross_entropy(net[4](net[2](net[0](x))), target).backward()


# No transport


def change_weights(net: nn.Module) -> None:
    for _, layer in synapses(net):
        layer.weight.data.copy_(torch.randn_like(layer.weight))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", LEARNED)
def test_what_learns_reads_the_weights_only_where_the_rule_says_so(name, kind):
    net, x, target = network(kind, name)
    other = copy.deepcopy(net)
    losses = []
    for each in (net, other):
        torch.manual_seed(1)
        losses.append(F.cross_entropy(each(x), target))
    before = {key: layer.weight.detach().clone() for key, layer in synapses(other)}
    change_weights(other)
    for loss in losses:
        torch.manual_seed(2)
        loss.backward()
    weights = gradients(other, "weight")
    if name in SHARING:  # its own decay of W is all that may have changed
        for key, layer in synapses(other):
            change = layer.rule.decay * (layer.weight.detach() - before[key])
            torch.testing.assert_close(weights[f"{key}.weight"] - change, net.get_submodule(key).weight.grad)
    else:
        assert same(gradients(net, "weight"), weights)
    reads_weight = name in ("sa", "wm", "ldrl", "sum")
    assert same(gradients(net, "feedback"), gradients(other, "feedback")) is not reads_weight


@pytest.mark.parametrize("name", ["usf", "frsf"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_sign_rules_take_only_signs(name, kind):
    net, _, _ = network(kind, name)
    for _, layer in synapses(net):
        before = layer.feedback.clone()
        assert torch.equal(layer.feedback.sign(), layer.weight.sign())
        layer.weight.data.mul_(torch.rand_like(layer.weight) + 0.1)
        layer.refresh()
        assert torch.equal(layer.feedback, before)
        flip = torch.rand_like(layer.weight) < 0.5
        layer.weight.data[flip] *= -1
        layer.refresh()
        assert torch.equal(layer.feedback, torch.where(flip, -before, before))


@pytest.mark.parametrize("name", TIED)
def test_sign_rules_follow_the_weights_at_each_pass(name):
    net, x, target = network("conv", name)
    change_weights(net)
    step(net, x, target)
    drawn = [layer.feedback.clone() for _, layer in synapses(net)]
    for _, layer in synapses(net):
        assert torch.equal(layer.feedback.sign(), layer.weight.sign())
    step(net, x, target, seed=2)
    fresh = [not torch.equal(layer.feedback, b) for (_, layer), b in zip(synapses(net), drawn, strict=True)]
    assert all(fresh) if name == "brsf" else not any(fresh)


@pytest.mark.parametrize("name", TIED)
def test_magnitudes_outlive_a_weight_of_zero(name):
    net, x, target = network("dense", name)
    layer = net[2]
    layer.weight.data.zero_()
    step(net, x, target)
    assert layer.feedback.abs().min() > 0


def test_uniform_signs_have_the_he_deviation():
    net, _, _ = network("conv", "usf", scale=0.5)
    for module, fan_in in ((net[0], 2 * 9), (net[2], 2 * 4), (net[5], 4 * 4), (net[7], 48)):
        torch.testing.assert_close(module.feedback.abs(), torch.full_like(module.weight, 0.5 * (2 / fan_in) ** 0.5))


@pytest.mark.parametrize("name", [name for name in RULES if not RULES[name].transports and name != "usf"])
def test_random_feedback_has_the_stated_deviation(name):
    torch.manual_seed(0)
    net = transport_free(nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 50)), build(name, scale=2.0))
    stated = 2.0 / 50**0.5 if name in DIRECT else 2.0 * (2 / 300) ** 0.5
    if name == "ldfa":
        stated *= (net[0].rule.rank / 200) ** 0.5  # the rank over the outputs
    feedback = net[0].feedback.detach().double()
    n = feedback.numel() if name not in FACTORED else net[0].feedback_left.numel()
    assert abs(feedback.square().mean() / stated**2 - 1) < 5 * (2 / n) ** 0.5
    if name not in TIED:
        assert abs(feedback.mean() / stated) < 5 / n**0.5
    # Feedback is drawn apart from the weights: two random matrices of n entries are at right angles.
    if name not in (*TIED, *DIRECT):
        cosine = F.cosine_similarity(feedback.flatten(), net[0].weight.double().flatten(), dim=0)
        assert abs(cosine) < 5 / n**0.5


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("soft", [0.0, 0.3, 0.8, 1.0])
def test_soft_feedback_begins_as_the_mix_that_its_equation_says_and_stays(kind, soft):
    plain, x, target = network(kind, "fa")
    net, _, _ = network(kind, "fa", soft=soft)
    begun = {key: layer.feedback.clone() for key, layer in synapses(net)}
    for key, layer in synapses(plain):
        assert torch.equal(layer.weight, net.get_submodule(key).weight)
        close(begun[key], soft * layer.weight.detach() + (1 - soft**2) ** 0.5 * layer.feedback)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step(net, x, target)
    optimizer.step()
    for key, layer in synapses(net):
        assert torch.equal(layer.feedback, begun[key])


class Saved:
    """Storages that autograd holds between forward and backward."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def __enter__(self) -> "Saved":
        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            self.storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)


@pytest.mark.parametrize("name", [name for name in RULES if name not in PERTURBED])  # which hold their noise
def test_no_more_activations_are_held_than_by_backprop(name):
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(3)]
    native = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    x = torch.randn(8, 4, 9, 9)
    net = transport_free(native, build(name), sample=x)
    held = []
    for each in (native, net):
        with Saved() as saved:
            each(x)
        mine = {p.untyped_storage().data_ptr() for p in each.parameters()}
        held.append(sum(size for pointer, size in saved.storages.items() if pointer not in mine))
    logits = 8 * 3 * 4  # a rule that reads outputs holds the last layer's too, which nothing else does
    assert held[1] <= held[0] + logits


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", ["usf", "frsf"])
def test_magnitudes_survive_weight_decay(name, kind):
    net, x, target = network(kind, name)
    before = {key: layer.feedback.abs() for key, layer in synapses(net)}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.5)
    for seed in range(3):
        step(net, x, target, seed)
        optimizer.step()
    for key, layer in synapses(net):
        assert torch.equal(layer.feedback.abs(), before[key])


# Backward passes through backward passes


def alike(net: nn.Module) -> nn.Module:
    """The network with the same weights whose feedback is the same, but fixed."""
    twin = copy.deepcopy(net)
    for _, layer in synapses(twin):
        layer.rule, feedback = rule("fa"), layer.feedback.detach()
        for _, key in layer.entries_of("feedback"):
            del layer._parameters[key]
        layer.feedback = nn.Parameter(feedback, requires_grad=False)
    return twin


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", [name for name in LEARNED if name not in (*DIRECT, "np")])  # which read the error
def test_a_gradient_penalty_leaves_feedback_its_local_gradient(name, kind):
    net, x, target = network(kind, name)
    local, fixed = copy.deepcopy(net), alike(net)
    for each in (net, fixed):
        given = x.clone().requires_grad_()
        loss = F.cross_entropy(each(given), target)
        (dx,) = torch.autograd.grad(loss, given, create_graph=True)
        torch.manual_seed(1)
        (loss + 300 * dx.square().sum()).backward()
    torch.manual_seed(1)
    F.cross_entropy(local(x), target).backward()
    for key, layer in synapses(net):
        other = fixed.get_submodule(key)
        decay = layer.rule.decay if name in SHARING else 0.0
        close(layer.weight.grad, other.weight.grad + decay * layer.weight.detach())
        close(layer.bias.grad, other.bias.grad)
        if name in SHARING:
            learned = layer.learned_feedback
            close(learned.grad, layer.shared_update(other.weight.grad) + decay * learned.detach())
        else:
            close(layer.feedback.grad, local.get_submodule(key).feedback.grad)
            plain = local.get_submodule(key).weight.grad
            assert (layer.weight.grad - plain).norm() > 0.1 * plain.norm()  # the penalty is felt


def inner_step(net: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Parameters after a step that can be differentiated, as meta-learning takes one."""
    trained = {key: p for key, p in net.named_parameters() if p.requires_grad}
    moved = torch.autograd.grad(F.cross_entropy(net(x), target), list(trained.values()), create_graph=True)
    return dict(net.named_parameters()) | {
        key: p - 0.5 * gradient for (key, p), gradient in zip(trained.items(), moved, strict=True)
    }


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    "name", [name for name in LEARNED if name not in ("wm", "ldrl", "dkp", "np")]
)  # whose noise or error is another
def test_a_step_through_a_step_adds_one_local_gradient_for_each(name, kind):
    net, x, target = network(kind, name)
    local, fixed = copy.deepcopy(net), alike(net)
    after = inner_step(net, x, target)
    F.cross_entropy(torch.func.functional_call(net, after, (x.flip(0),)), target).backward()
    outer = {key: p.detach().requires_grad_(net.get_parameter(key).requires_grad) for key, p in after.items()}
    F.cross_entropy(torch.func.functional_call(local, outer, (x.flip(0),)), target).backward()
    step(local, x, target)
    decay = 0.0
    if name in SHARING:  # its own decay is no part of the task that is differentiated
        decay = net[0].rule.decay
    else:
        learnt = {key: p.detach() for key, p in after.items() if key.endswith("feedback")}
        F.cross_entropy(
            torch.func.functional_call(fixed, inner_step(fixed, x, target) | learnt, (x.flip(0),)), target
        ).backward()
    for key, layer in synapses(net):
        w, b = f"{key}.weight", f"{key}.feedback"
        if name in SHARING:
            b = b + "_right" * (name in FACTORED)
            learned = layer.learned_feedback
            apart = layer.shared_update((layer.weight + after[w]).detach()) - (learned + after[b]).detach()
            close(layer.shared_update(layer.weight.grad) - learned.grad, decay * apart)
        else:
            close(layer.feedback.grad, outer[b].grad + local.get_submodule(key).feedback.grad)
            close(layer.weight.grad, fixed.get_submodule(key).weight.grad)


# Which axis counts the examples


class Encoder(nn.Module):
    """A transformer over (sequence, batch, feature) or (batch, sequence, feature), and classes of whole sequences."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sequence = int(batch_first)
        layer = nn.TransformerEncoderLayer(8, 2, 6, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(self.sequence))


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


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", RULES)
def test_an_empty_batch_asks_nothing_of_the_weights(name, kind):
    net, x, target = network(kind, name)
    step(net.eval(), x[:0], target[:0])
    for _, layer in synapses(net):
        decay = layer.rule.decay if name in SHARING else 0.0
        close(layer.weight.grad, decay * layer.weight.detach())
        assert not layer.rule.learned or layer.learned_feedback.grad.isfinite().all()


# What the theory says


@pytest.mark.parametrize(("momentum", "kind"), [(0.0, "dense"), (0.0, "conv"), (0.9, "dense")])
def test_kolen_pollack_contracts_exactly(kind, momentum):
    lr, decay, steps = 0.3, 0.1, 25
    net, x, target = network(kind, "kp", decay=decay)
    start = {key: (layer.weight - layer.feedback).detach() for key, layer in synapses(net)}
    weights = {key: layer.weight.detach().clone() for key, layer in synapses(net)}
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    factor, velocity = 1.0, 0.0
    for t in range(steps):
        net.zero_grad()
        step(net, x, target, seed=t)
        optimizer.step()
        velocity = momentum * velocity + decay * factor
        factor -= lr * velocity
    if not momentum:
        assert factor == pytest.approx((1 - lr * decay) ** steps)
    for key, layer in synapses(net):
        torch.testing.assert_close((layer.weight - layer.feedback).detach(), factor * start[key], rtol=1e-9, atol=1e-12)
        assert (layer.weight - weights[key]).norm() > 0.1 * weights[key].norm()  # W did go somewhere


class Language(nn.Module):
    """Token embeddings and a classifier of tokens that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.hidden(self.embed(tokens)).tanh())


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("case", ["frozen", "tied", "penalty", "penalty on the input's gradient"])
def test_kolen_pollack_contracts_where_more_moves_the_weights_than_the_task(case, accumulated):
    lr, decay, steps = 0.2, 0.1, 20
    torch.manual_seed(0)
    if case == "tied":
        net = transport_free(Language().double(), "kp", decay=decay)
        x, target = torch.randint(5, (9,)), torch.randint(5, (9,))
    else:
        net, x, target = network("dense", "kp", decay=decay)
    layers = dict(synapses(net))
    for layer in layers.values():
        layer.weight.requires_grad_(case != "frozen")
    start = {key: (layer.weight - layer.feedback).detach() for key, layer in layers.items()}
    before = {key: layer.weight.detach().clone() for key, layer in layers.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(accumulated):
            given = x if case == "tied" else x.clone().requires_grad_()
            loss = F.cross_entropy(net(given), target)
            if case == "penalty":
                loss = loss + 0.1 * sum(layer.shared_weight().abs().sum() for layer in layers.values())
            elif case == "penalty on the input's gradient":
                loss = loss + torch.autograd.grad(loss, given, create_graph=True)[0].square().sum()
            loss.backward()
        optimizer.step()
    for key, layer in layers.items():
        close((layer.weight - layer.feedback).detach(), (1 - lr * decay * accumulated) ** steps * start[key])
        assert torch.equal(layer.weight, before[key]) is (case == "frozen")


APART = {
    "penalty": "moves W and B differently",
    "penalty that begins later": "moves W and B differently",
    "penalty in a pass of its own": "moves W and B differently",
    "decay on W alone": "moves W and B differently",
    "rate of its own": "moves W and B differently",
    "W in no optimiser": "no optimiser moves the weight",
    "B in no optimiser": "no optimiser moves the feedback",
}


@pytest.mark.parametrize("case", APART)
def test_kolen_pollack_says_so_when_the_weights_do_not_move_together(case):
    net, x, target = network("dense", "kp")
    layer = net[2]
    others = [p for p in net.parameters() if p is not layer.weight and p is not layer.feedback]
    weight = {"params": [layer.weight], "weight_decay": 0.1 if case == "decay on W alone" else 0.0}
    feedback = {"params": [layer.feedback], "lr": 0.1 if case == "rate of its own" else 0.2}
    alone = {"W in no optimiser": [feedback], "B in no optimiser": [weight]}.get(case, [weight, feedback])
    optimizer = torch.optim.SGD([{"params": others}, *alone], lr=0.2, momentum=0.9)

    def train():
        for t in range(9):
            optimizer.zero_grad()
            step(net, x, target, seed=t)
            if case.startswith("penalty") and (t > 3 or case != "penalty that begins later"):
                (0.1 * layer.weight.abs().sum()).backward()
            optimizer.step()

    with pytest.warns(UserWarning, match=rf"^kp: Linear\(.*: .*{APART[case]}") as seen:
        train()
    assert len(seen) == 1  # said once, and of this layer alone


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "how", ["one optimiser", "two optimisers", "a copy", "steps of zero", "frozen W", "decay on both"]
)
def test_kolen_pollack_is_silent_when_the_weights_move_together(how, precision):
    net, x, target = network("dense", "kp")
    net, x = net.to(precision), x.to(precision)
    if how == "a copy":
        net = copy.deepcopy(net)
    for layer in net if how == "frozen W" else ():
        getattr(layer, "weight", x).requires_grad_(False)
    feedback = list(feedback_parameters(net).values())
    forward = [p for p in net.parameters() if all(p is not each for each in feedback)]
    groups = [forward, feedback] if how == "two optimisers" else [forward + feedback]
    decay = 0.1 if how == "decay on both" else 0.0
    optimizers = [torch.optim.SGD(each, lr=0.2, momentum=0.9, weight_decay=decay) for each in groups]
    for t in range(16):
        for optimizer in optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if how == "steps of zero" else 0.2 / 10 ** (t / 3)
        step(net, x, target, seed=t)
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("other", [nn.EmbeddingBag(5, 4), nn.Embedding(5, 4, max_norm=1.0)])
def test_kolen_pollack_refuses_a_weight_that_others_move(other):
    head = nn.Linear(4, 5)
    head.weight = other.weight
    with pytest.raises(InputError, match=rf"^transport_free: kp: 0 \({type(other).__name__}\) uses the weight of"):
        transport_free(nn.Sequential(other, head), "kp")
    transport_free(nn.Sequential(other, head), "ia")


@pytest.mark.parametrize("noise", ["normal", "uniform"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_weight_mirror_drifts_along_the_weights(kind, noise):
    torch.manual_seed(0)
    std, amp, draws = 0.7, 0.4, 600
    layer = nn.Linear(4, 3) if kind == "dense" else nn.Conv2d(2, 3, 2)
    x = torch.zeros((50, 4) if kind == "dense" else (6, 2, 5, 5), dtype=torch.float64)
    net = transport_free(layer.double(), "wm", amp=amp, decay=0.0, noise=noise, noise_std=std)
    drifts = []
    for _ in range(draws):
        net.feedback.grad = None
        net(x).sum().backward()
        drifts.append(-net.feedback.grad)
    drift = torch.stack(drifts)
    error = drift.std(0) / draws**0.5
    expected = amp * std**2 * net.weight.detach()
    assert ((drift.mean(0) - expected).abs() < 4.5 * error).all()  # at most 24 entries: fails by chance once in 6000
    assert error.max() < 0.1 * expected.abs().max()  # tight enough to tell the factor


def settle(name: str, *, x: Tensor, lr: float, steps: int, **coefficients) -> tuple[nn.Module, Tensor]:
    """Descend the rule at fixed W and x; returns the layer and its first feedback."""
    torch.manual_seed(0)
    layer = transport_free(nn.Linear(x.shape[1], 4).double(), name, **coefficients)
    first = layer.feedback.detach().clone()
    optimizer = torch.optim.SGD([layer.feedback], lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        layer(x).sum().backward()
        optimizer.step()
    return layer, first


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_says_whether_it_depends_on_the_feedback(name):
    layer = transport_free(nn.Linear(5, 4).double(), build("sum", **dict.fromkeys(SUM, 0.0) | {name: 0.3}))
    x, gradients = torch.randn(6, 5, dtype=torch.float64), []
    for _ in range(2):
        layer.feedback.grad = None
        layer(x).sum().backward()
        gradients.append(layer.feedback.grad.clone())
        layer.feedback.data.normal_()
    assert gradients[0].norm() > 0
    assert torch.equal(*gradients) == PRIMITIVES[name].pulls


def test_fixed_points_are_those_of_the_theory():
    torch.manual_seed(1)
    x = torch.randn(20, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    sigma = x.T @ x / len(x)

    layer, _ = settle("wm-reg", x=x, lr=0.1, steps=500, amp=0.3, decay=0.5)
    w = layer.weight.detach()
    torch.testing.assert_close(layer.feedback.detach(), 0.3 / 0.5 * w @ sigma, rtol=1e-8, atol=1e-10)

    layer, _ = settle("ia", x=x, lr=0.1, steps=2000, amp=0.3, null=0.2, decay=0.4)
    c = w @ sigma @ w.T
    expected = 0.3 * torch.linalg.solve(0.2 * c + 0.4 * torch.eye(4, dtype=w.dtype), w @ sigma)
    torch.testing.assert_close(layer.feedback.detach(), expected, rtol=1e-8, atol=1e-10)

    layer, _ = settle("sa", x=x, lr=0.1, steps=500, self=0.6, decay=0.5)
    torch.testing.assert_close(layer.feedback.detach(), 0.6 / 0.5 * w, rtol=1e-8, atol=1e-10)


def test_activation_alignment_settles_on_the_range_of_its_inputs():
    torch.manual_seed(1)
    x = torch.randn(20, 3, dtype=torch.float64) @ torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64))[0].T
    layer, first = settle("aa", x=x, lr=0.3, steps=600, amp=0.3, sparse=0.5)
    onto = torch.linalg.pinv(x) @ x
    w, b = layer.weight.detach(), layer.feedback.detach()
    torch.testing.assert_close(b @ onto, 0.3 / 0.5 * w @ onto, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(b - b @ onto, first - first @ onto, rtol=1e-8, atol=1e-10)  # never aligns


def test_weight_mirror_settles_around_the_weights():
    torch.manual_seed(1)
    x = torch.zeros(200, 6, dtype=torch.float64)
    layer, _ = settle("wm", x=x, lr=0.01, steps=300, amp=0.4, decay=0.5, noise_std=1.5)
    expected = 0.4 * 1.5**2 / 0.5 * layer.weight.detach()
    assert (layer.feedback.detach() - expected).norm() < 0.15 * expected.norm()


# Schedules


@pytest.mark.parametrize("name", RULES)
def test_every_coefficient_says_what_it_means(name):
    assert all(field.metadata["about"] for field in dataclasses.fields(RULES[name]))


def test_set_rule_changes_coefficients_and_keeps_feedback():
    net, x, target = network("conv", "sum", amp=0.0, null=0.0, sparse=0.0, self=0.0, decay=0.2)
    step(net, x, target)
    before = [layer.feedback.clone() for _, layer in synapses(net)]
    net.zero_grad()
    set_rule(net, build("sum", amp=0.5))  # from now on outputs are read, which in-place activations overwrote
    step(net, x, target)
    assert all(torch.equal(layer.feedback, b) for (_, layer), b in zip(synapses(net), before, strict=True))
    fresh, x, target = network("conv", "sum", amp=0.5)
    fresh.load_state_dict(net.state_dict())
    step(fresh, x, target)
    assert same(gradients(net, "feedback"), gradients(fresh, "feedback"))


def test_set_rule_refuses_another_rule():
    net, _, _ = network("dense", "ia")
    with pytest.raises(InputError, match=r"^set_rule: the model learns by ia, not sa"):
        set_rule(net, rule("sa"))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_drtp_reads_the_target_however_sure_the_network_is(smoothing):
    torch.manual_seed(0)
    output = (torch.randn(64, 10) * torch.logspace(-1, 3, 64)[:, None]).requires_grad_()
    target = torch.randint(10, (64,))
    loss = torch.nn.functional.cross_entropy(output, target, label_smoothing=smoothing)
    (error,) = torch.autograd.grad(loss, output)
    signal = RULES["drtp"]().signal(error, output.detach())
    assert torch.equal(signal.argmin(1), target)
    assert torch.equal(signal.sum(1), torch.full((64,), -1 / 64))


# Direct feedback that learns


def test_direct_kolen_pollack_brings_the_last_layer_together_and_learns_from_every_position():
    net, x, target = network("dense", "dkp", decay=0.3)
    start = (net[4].feedback - net[4].weight).detach()
    optimizer = torch.optim.SGD([net[4].weight, net[4].feedback], lr=0.1)
    for _ in range(3):
        net.zero_grad()
        step(net, x, target)
        net[4].weight.grad += 0.3 * net[4].weight.detach()  # with the same decay, as Kolen-Pollack asks for
        optimizer.step()
    close((net[4].feedback - net[4].weight).detach(), 0.97**3 * start)
    grads = []
    for reduction in ("mean", "sum"):  # over the positions of a map
        net, x, target = network("conv", "dkp", decay=0.0, reduction=reduction)
        step(net, x, target)
        grads.append({name: (p, net.get_parameter(name).shape) for name, p in gradients(net, "feedback").items()})
    for name, (mean, shape) in grads[0].items():
        close(math.prod(shape[2:]) * mean, grads[1][name][0])
    words = transport_free(Encoder(True).double(), "dkp", sample=torch.randn(4, 3, 8).double(), decay=0.0)
    seen, errors = [], []
    _, layer = next(synapses(words))
    layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
    output = words(torch.randn(4, 3, 8, dtype=torch.float64))
    output.register_hook(errors.append)
    F.cross_entropy(output, torch.arange(4) % 3).backward()
    close(layer.feedback.grad, torch.einsum("nc,npi->ci", errors[0], seen[0]))
