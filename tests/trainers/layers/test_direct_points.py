"""Direct feedback at chosen modules: Bᵀ e enters at their outputs, and inside them the error goes on by backprop."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import wtdiag
from wtdiag.probes.errors import InputError
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import feedback_parameters, set_rule, summary
from wtdiag.trainers.layers.direct_points import FEEDBACK
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import rule


class Block(nn.Module):
    """A residual block that returns a tuple, as those of Hugging Face do."""

    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x):
        return x + self.fc2(torch.tanh(self.fc1(x))), None


class Net(nn.Module):
    def __init__(self, *, sequence_first=False):
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(Block(8) for _ in range(3))
        self.head = nn.Linear(8, 3)
        self.axis = int(not sequence_first)

    def forward(self, x):
        h = self.embed(x)
        for block in self.blocks:
            h, _ = block(h)
        return self.head(h.mean(self.axis) if h.dim() > 2 else h)


def converted(name="dfa", *, points="blocks.*", shape=(5, 6), seed=0, net=Net, **given):
    torch.manual_seed(seed)
    model = net().double()
    return model, wtdiag.transport_free(model, name, points=points, sample=torch.randn(*shape).double(), **given)


def by_hand(model, twin, x, target):
    """Return the gradients that feedback at the outputs of all blocks gives, by autograd of each part alone."""
    h, parts = model.embed(x), []
    for block in model.blocks:
        out, _ = block(h)
        parts.append((h, out))
        h = out.detach().requires_grad_()
    output = model.head(h.mean(model.axis) if h.dim() > 2 else h)
    loss = F.cross_entropy(output, target)
    error = torch.autograd.grad(loss, output, retain_graph=True)[0]
    weight, bias = torch.autograd.grad(loss, [*model.head.parameters()])
    gradients = {"head.weight": weight, "head.bias": bias}
    for i, (block, (_, out)) in enumerate(zip(model.blocks, parts, strict=True)):
        sent = error @ getattr(twin.blocks[i], FEEDBACK)
        sent = sent if out.dim() == 2 else sent.unsqueeze(model.axis).expand(out.shape)
        named = {f"blocks.{i}.{name}": p for name, p in block.named_parameters()}
        named |= {f"embed.{name}": p for name, p in model.embed.named_parameters()} if i == 0 else {}
        gradients |= dict(zip(named, torch.autograd.grad(out, [*named.values()], sent), strict=True))
    return gradients


@pytest.mark.parametrize("shape", [(5, 6), (5, 4, 6), (4, 5, 6)])
@pytest.mark.parametrize("projection", ["own", "shared"])
def test_the_error_enters_at_the_points_and_goes_on_by_backprop(shape, projection):
    model, twin = converted(
        shape=shape, projection=projection, net=lambda: Net(sequence_first=shape == (4, 5, 6)), batch_axis=None
    )
    x, target = torch.randn(*shape).double(), torch.randint(0, 3, (5,))
    F.cross_entropy(twin(x), target).backward()
    wanted = by_hand(model, twin, x, target)
    got = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-12, atol=1e-14)


def test_of_maps_every_entry_has_feedback_of_its_own():
    net = nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(32, 3)).double()
    x, target = torch.randn(4, 1, 6, 6).double(), torch.randint(0, 3, (4,))
    twin = wtdiag.transport_free(net, "dfa", points="0", sample=x)
    assert getattr(twin[0], FEEDBACK).shape == (3, 2, 4, 4)
    output = twin(x)
    error = torch.autograd.grad(F.cross_entropy(output, target), output, retain_graph=True)[0]
    F.cross_entropy(output, target).backward()
    sent = torch.einsum("nc,cijk->nijk", error, getattr(twin[0], FEEDBACK))
    wanted = torch.autograd.grad(net[0](x), net[0][0].weight, sent)[0]
    torch.testing.assert_close(twin[0][0].weight.grad, wanted, rtol=1e-12, atol=1e-14)


def test_signals_are_compared_with_exact_backprop():
    model, twin = converted()
    x, target = torch.randn(5, 6).double(), torch.randint(0, 3, (5,))
    signals, exact = error_signals(twin, x, target), error_signals(wtdiag.transport_free(model, "bp"), x, target)
    for name, found in signals.items():
        torch.testing.assert_close(torch.tensor(found["delta_exact"]), torch.tensor(exact[name]["delta_exact"]))
        assert (abs(found["delta"] - found["delta_exact"]).max() == 0) == (name == "head")
    F.cross_entropy(twin(x), target).backward()  # the points are as they were
    torch.testing.assert_close(torch.tensor(signals["blocks.1.fc1"]["weight_gradient"]), twin.blocks[1].fc1.weight.grad)


@pytest.mark.parametrize("shape", [(5, 6), (5, 4, 6)])
def test_feedback_at_points_learns_from_the_error_and_what_the_module_returns(shape):
    model, twin = converted("dkp", shape=shape, decay=0.25)
    x, target = torch.randn(*shape).double(), torch.randint(0, 3, (5,))
    output = twin(x)
    error = torch.autograd.grad(F.cross_entropy(output, target), output, retain_graph=True)[0]
    F.cross_entropy(output, target).backward()
    h = model.embed(x)
    for i, block in enumerate(model.blocks):
        h, _ = block(h)
        feedback = getattr(twin.blocks[i], FEEDBACK)
        wanted = error.T @ (h if h.dim() == 2 else h.sum(1)) + 0.25 * feedback
        torch.testing.assert_close(feedback.grad, wanted, rtol=1e-12, atol=1e-14)
    (group,) = wtdiag.parameter_groups(twin, lr=0.1)  # B takes W's steps
    assert {id(getattr(block, FEEDBACK)) for block in twin.blocks} <= {id(p) for p in group["params"]}
    signals = error_signals(twin, x, target)  # which leaves no gradient behind
    assert signals["blocks.0.fc1"]["delta"].any()


def test_training_moves_the_feedback_of_points_that_learn():
    settings = Settings(rule="dkp", points="blocks.*", lr=0.1)
    _, twin = converted("dkp")
    learner = Learner(twin, settings, total=10, epoch=10)
    before = twin.blocks[1].point_feedback.detach().clone()
    x, target = torch.randn(5, 6).double(), torch.randint(0, 3, (5,))
    learner.begin(5)
    F.cross_entropy(twin(x), target).backward()
    gradient = twin.blocks[1].point_feedback.grad.clone()
    learner.step(5)
    rate, _ = learner.rates(5)
    assert gradient.any()
    torch.testing.assert_close(twin.blocks[1].point_feedback.detach(), before - rate * gradient)


def test_targets_are_projected_too():
    _, twin = converted("drtp")
    x, target = torch.randn(5, 6).double(), torch.tensor([0, 1, 2, 0, 1])
    F.cross_entropy(twin(x), target).backward()
    sent = -F.one_hot(target, 3).double() / 5 @ getattr(twin.blocks[2], FEEDBACK)
    torch.testing.assert_close(twin.blocks[2].fc2.bias.grad, sent.sum(0))


def test_shared_projections_are_slices_of_one():
    torch.manual_seed(3)
    first, more = torch.empty(3, 8).double(), torch.empty(3, 20).double()
    shared = rule("dfa", projection="shared", scale=2.0)
    shared.init_feedback(first, 1.0, first)
    torch.randn(7)  # what is drawn between two layers changes nothing
    shared.init_feedback(more, 1.0, more)
    torch.testing.assert_close(first * 8**0.5, (more * 20**0.5)[:, :8])
    assert more.abs().max() <= 2 * 20**-0.5
    assert abs(float(more.std() * 20**0.5) - 2 / 3**0.5) < 0.2


def test_points_are_part_of_the_model(tmp_path):
    model, twin = converted()
    names = [f"blocks.{i}.{FEEDBACK}" for i in range(3)]
    assert list(feedback_parameters(twin)) == names
    assert not any(p.requires_grad for p in feedback_parameters(twin).values())
    assert set(names) <= twin.state_dict().keys()
    text = str(summary(twin))
    assert text.startswith("The output's error enters by dfa at the outputs of:\n  blocks.0 ")
    assert "8 layers learn by backprop from there" in text
    assert not summary(twin).skipped
    x, target = torch.randn(5, 6).double(), torch.randint(0, 3, (5,))
    other = copy.deepcopy(twin)
    for each in (twin, other):
        F.cross_entropy(each(x), target).backward()
    assert torch.equal(other.embed.weight.grad, twin.embed.weight.grad)
    with torch.no_grad():
        other.blocks[0].point_feedback.mul_(2)
    other.zero_grad()
    F.cross_entropy(other(x), target).backward()
    torch.testing.assert_close(other.embed.weight.grad, 2 * twin.embed.weight.grad)
    back = wtdiag.revert(twin)
    assert back.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(back(x), model(x))
    with pytest.raises(InputError, match="the model learns by dfa, not fa"):
        set_rule(twin, rule("fa"))


def test_a_run_is_rebuilt_and_resumed_with_its_points(tmp_path):
    settings = Settings(
        rule="dfa", model="transformer", points="embed,encoder.layers.*", epochs=0.2, snapshots=2, probe_size=4,
        device="cpu", coefficients={"projection": "shared"},
    )  # fmt: skip
    for _ in wtdiag.Training(settings, tmp_path / "run"):
        pass
    run = wtdiag.open_run(tmp_path / "run")
    twin = run.model(run.steps[-1])
    assert getattr(twin.embed, FEEDBACK).shape[0] == 10
    analysis = wtdiag.analyze(run, ["error_angle"])
    assert analysis.error_angle.sel(layer="fc").max() < 1e-3
    assert analysis.error_angle.sel(layer="embed").min() > 20


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("dfa", {"points": "blok.*"}, r"'blok.\*' names no module; of its depth there are blocks.0"),
        ("dfa", {"points": "blocks"}, r"blocks \(ModuleList\) has no forward pass of its own; .*: blocks.\*"),
        ("fa", {}, "points: fa does not project the output's error$"),
        ("dfa", {"shape": (5, 5, 6)}, r"blocks.0: which axis counts the examples in \(5, 5, 8\) is not known"),
    ],
)
def test_points_that_cannot_be_used_are_refused(name, given, says):
    with pytest.raises(InputError, match=says):
        converted(name, **given)


def test_points_need_a_sample():
    with pytest.raises(InputError, match="points: needs sample="):
        wtdiag.transport_free(Net(), "dfa", points="blocks.*")


def test_the_initial_feedback_has_no_schedule():
    with pytest.raises(InputError, match="scale: sets the initial B only"):
        Settings(rule="dfa", coefficients={"scale": "linear:1:2"})
    with pytest.raises(InputError, match="points: fa does not project"):
        Settings(rule="fa", points="fc")
