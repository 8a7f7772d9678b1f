"""Kolen-Pollack: B comes to W exactly as the theory says, or a warning tells why it cannot."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trainers.rules.networks import close, network, step
from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import feedback_parameters, synapses, transport_free


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
