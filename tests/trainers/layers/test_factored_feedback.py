"""Feedback of two factors: its arithmetic, its learning in every type of layer, and what records and measures it."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trainers.layer_cases import CASES
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import snapshot_path
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers import factored_feedback
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.layers.operations import Operation, Rows
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.observe.open_run import open_run, signals_of
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import rule

KINDS = [
    ("pfa", {}),
    ("pfa", {"left": "orthogonal", "expand": 0.5}),
    ("pfa", {"density": 0.5, "expand": 2.0}),
    ("ldfa", {"rank": 2}),
    ("ldfa", {"rank": 2, "oja": 0.0}),
]
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def close(got: Tensor, expected: Tensor, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-12)


def train(net: nn.Module, steps: int, **options: float) -> None:
    """Take steps of SGD with momentum on fixed batches; weights and feedback are moved by one optimiser."""
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], momentum=0.9, **options)
    drawn = torch.Generator().manual_seed(5)
    for _ in range(steps):
        x = torch.randn(16, 2, 5, 5, dtype=torch.float64, generator=drawn)
        optimizer.zero_grad()
        F.cross_entropy(net(x), torch.arange(16) % 3).backward()
        optimizer.step()


def native() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2),
        nn.Flatten(),
        nn.Linear(400, 6),
        nn.Tanh(),
        nn.Linear(6, 3),
    ).double()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_a_pass_equals_the_one_through_the_product_whichever_way_it_takes(name, options, case, monkeypatch):
    original = CASES[case].build()
    x = CASES[case].input()
    dy = torch.randn(original(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    layer = transport_free(original, name, **options)
    with_b = copy.deepcopy(original)
    with_b.weight.data.copy_(layer.feedback.detach())
    b = x.clone().requires_grad_()
    (with_b(b) * dy).sum().backward()
    (original(x) * dy).sum().backward()
    for ways in itertools.product((True, False), repeat=2):
        monkeypatch.setattr(factored_feedback, "_cheapest", lambda *given, ways=ways, **options: ways)
        layer.zero_grad()
        sent = x.clone().requires_grad_()
        (layer(sent) * dy).sum().backward()
        close(sent.grad, b.grad)
        decay = layer.rule.decay
        close(layer.weight.grad, original.weight.grad + decay * original.weight.detach())
        # δ xᵀ = Pᵀ (dy xᵀ), by autograd of the product
        right = layer.feedback_right.detach().clone().requires_grad_()
        product = factored_feedback.product(layer.op, layer.feedback_left.detach(), right)
        (expected,) = torch.autograd.grad((product * original.weight.grad).sum(), right)
        close(layer.feedback_right.grad, expected + decay * right.detach())
        assert (layer.feedback_left.grad is not None) == layer.rule.learns_left


def test_the_product_is_that_of_each_group():
    grouped = transport_free(nn.Conv2d(4, 6, 3, groups=2).double(), "pfa", expand=2.0)
    p, r = grouped.feedback_left.detach(), grouped.feedback_right.detach()
    assert (p.shape, r.shape) == ((6, 6), (12, 2, 3, 3))
    for g in range(2):
        expected = torch.einsum("om,mixy->oixy", p[3 * g : 3 * g + 3], r[6 * g : 6 * g + 6])
        close(grouped.feedback[3 * g : 3 * g + 3].detach(), expected)
    transposed = transport_free(nn.ConvTranspose2d(4, 6, 3, groups=2).double(), "pfa", expand=2.0)
    p, r = transposed.feedback_left.detach(), transposed.feedback_right.detach()
    assert (p.shape, r.shape) == ((6, 6), (4, 6, 3, 3))
    for g in range(2):
        expected = torch.einsum("om,imxy->ioxy", p[3 * g : 3 * g + 3], r[2 * g : 2 * g + 2])
        close(transposed.feedback[2 * g : 2 * g + 2].detach(), expected)


def test_product_feedback_with_the_identity_is_kolen_pollack():
    nets = []
    for name, options in (("kp", {}), ("pfa", {"left": "identity"})):
        original = native()
        torch.manual_seed(1)
        nets.append(transport_free(original, name, decay=0.02, **options))
        train(nets[-1], 5, lr=0.05, weight_decay=0.01)
    for (name, kp), (_, pfa) in zip(*map(synapses, nets), strict=True):
        close(pfa.weight, kp.weight, rtol=1e-12)
        close(pfa.feedback, kp.feedback, rtol=1e-12)
        assert not torch.equal(kp.feedback, nets[0].get_submodule(name).weight)


@pytest.mark.parametrize(
    "options",
    [{"expand": 0.5}, {}, {"density": 0.2}, {"left": "orthogonal", "expand": 1.0}, {"left": "identity"}],
)
def test_the_left_factor_of_product_feedback_is_orthonormal_on_average(options):
    torch.manual_seed(0)
    product = rule("pfa", **options)
    total = torch.zeros(8, 8)
    for _ in range(2000):
        left = torch.empty(8, product.middle(8))
        product.init_left(left)
        total += left @ left.T / 2000
    torch.testing.assert_close(total, torch.eye(8), rtol=0, atol=0.12)
    sparse = torch.empty(100, 400)
    rule("pfa", density=0.2).init_left(sparse)
    assert abs((sparse != 0).double().mean() - 0.2) < 0.01


def test_a_left_factor_learns_the_leading_directions_of_the_error():
    torch.manual_seed(0)
    oja, left = rule("ldfa", rank=2), torch.empty(6, 2, dtype=torch.float64)
    oja.init_left(left)
    axes = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    sizes = torch.tensor([5.0, 4.0, 1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    for _ in range(400):
        dy = 1e-3 * (torch.randn(64, 6, dtype=torch.float64) * sizes) @ axes.T
        left -= 0.1 * oja.left_grad(left[None], dy[None], (dy @ left)[None])[0]
    torch.testing.assert_close(left.T @ left, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-3)
    assert (axes[:, :2].T @ left).square().sum() > 1.95


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_the_law_is_that_of_the_effective_feedback_with_weights_that_stand_still(name, options):
    net = transport_free(native(), name, decay=0.3, **options)
    x, target = torch.randn(4, 2, 5, 5, dtype=torch.float64), torch.arange(4) % 3
    laws = {key: found["law"] for key, found in error_signals(net, x, target).items()}
    for key, layer in synapses(net):
        p, b, w = layer.feedback_left.detach(), layer.feedback.detach(), layer.weight.detach()
        rest = factored_feedback.widened(layer.op, p, w)
        np.testing.assert_allclose(laws[key].gradient(b.numpy()), 0.3 * (b - rest).numpy(), atol=1e-12)
        np.testing.assert_allclose(laws[key].gradient(rest.numpy()), 0.0, atol=1e-12)
        # What a step of the right factor does to B, W being frozen
        layer.weight.requires_grad_(False)
        layer.feedback_left.requires_grad_(False)
    F.cross_entropy(net(x.requires_grad_()), target).backward()
    for key, layer in synapses(net):
        before = layer.feedback.detach()
        layer.feedback_right.data -= 0.1 * layer.feedback_right.grad
        moved = (layer.feedback.detach() - before).numpy()
        np.testing.assert_allclose(moved, -0.1 * laws[key].gradient(before.numpy()), atol=1e-12)


@pytest.mark.parametrize(("name", "options"), [("pfa", {}), ("ldfa", {"rank": 3})])
def test_a_run_records_the_product_and_its_factors_and_resumes_bitwise(name, options, tmp_path, monkeypatch):
    monkeypatch.setattr("wtdiag.trainers.loop.fit.CHECKPOINT_SECONDS", 0.0)
    settings = Settings(rule=name, coefficients=options, depth=3, width=8, epochs=1, snapshots=3)
    whole = Training(settings, tmp_path / "whole")
    for _ in whole:
        pass
    half = Training(settings, tmp_path / "half")
    for _ in itertools.islice(half, 15):
        pass
    half.close()
    again = Training(settings, tmp_path / "half", resume=True)
    for _ in again:
        pass
    for (key, value), other in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    run = open_run(tmp_path / "whole")
    last = int(run.steps[-1])
    snapshot, rebuilt = run.snapshot(last), run.model(last)
    for key, layer in synapses(whole.model):
        assert {f"{key}.feedback_left", f"{key}.feedback_right"} <= set(map(str, run.model(last).state_dict()))
        np.testing.assert_array_equal(snapshot[key].feedback, layer.feedback.detach().numpy())
        assert torch.equal(rebuilt.get_submodule(key).feedback_left, layer.feedback_left)
        assert torch.equal(rebuilt.get_submodule(key).feedback_right, layer.feedback_right)
    assert snapshot_path(run.path, last).exists()
    assert all("law" in found for found in signals_of(run)(last).values())


def test_kernels_and_narrow_factors_take_the_way_of_fewer_products():
    def ways(layer: nn.Module, x: Tensor, *, of_x: bool = True, **options: float) -> tuple[bool, bool]:
        net = transport_free(layer, "ldfa", oja=0.0, **options)
        return factored_feedback._cheapest(net.op, net(x), net.weight, net.feedback_left, of_x=of_x, of_left=False)

    apart_and_from_delta, formed_and_from_w, apart_and_from_w = (True, True), (False, False), (True, False)
    assert ways(nn.Linear(64, 64), torch.randn(8, 64), rank=4) == apart_and_from_delta
    assert ways(nn.Linear(64, 64), torch.randn(512, 64), rank=4) == apart_and_from_w
    assert ways(nn.Linear(64, 64), torch.randn(512, 64), rank=64) == formed_and_from_w
    assert ways(nn.Linear(64, 64), torch.randn(512, 64), of_x=False, rank=4) == (False, False)
    assert ways(nn.Linear(64, 64), torch.randn(8, 64), of_x=False, rank=4) == (False, True)
    assert ways(nn.Conv2d(16, 16, 3), torch.randn(4, 16, 8, 8), rank=2) == apart_and_from_w
    assert ways(nn.Conv2d(16, 16, 3), torch.randn(4, 16, 8, 8), rank=16) == formed_and_from_w


def test_layers_that_share_a_weight_share_both_factors():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 3)).double()
    tied[2].weight = tied[0].weight
    net = transport_free(tied, "pfa")
    assert net[0].feedback_left is net[2].feedback_left
    assert net[0].feedback_right is net[2].feedback_right
    x = torch.randn(5, 4, dtype=torch.float64)
    net(x).square().sum().backward()
    task = net[0].weight.grad - 2 * net[0].rule.decay * net[0].weight.detach()
    close(net[0].feedback_right.grad, net[0].feedback_left.T @ task + 2 * net[0].rule.decay * net[0].feedback_right)


def test_a_penalty_on_a_weight_reaches_the_right_factor_narrowed():
    net = transport_free(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).double(), "pfa", decay=0.0)
    net(torch.zeros(2, 4, dtype=torch.float64)).sum().backward()
    net.zero_grad()
    net[0].shared_weight().square().sum().backward()
    close(net[0].feedback_right.grad, net[0].feedback_left.T @ (2 * net[0].weight.detach()))


def test_what_cannot_be_is_refused_by_name():
    with pytest.raises(InputError, match=r"^pfa: density: only a gaussian left factor can be sparse, got left='orth"):
        rule("pfa", density=0.5, left="orthogonal")
    with pytest.raises(InputError, match=r"^pfa: density: expected a share of at most 1, got 2"):
        rule("pfa", density=2.0)
    with pytest.raises(InputError, match=r"^ldfa: rank: expected a whole number from 1 on, got 2\.5"):
        rule("ldfa", rank=2.5)
    layer = transport_free(nn.Sequential(nn.Linear(4, 6)), "ldfa")[0]
    y = layer._apply_synapse(torch.ones(2, 4), Operation(layer))
    with pytest.raises(InputError, match=r"^ldfa: the left factor cannot learn in a layer with Operation, because"):
        y.sum().backward()


def test_parts_of_a_packed_matrix_learn_their_rows_of_the_left_factor():
    packed = transport_free(nn.Sequential(nn.Linear(4, 6)).double(), "ldfa", rank=2)[0]
    x, dy = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    (packed._apply_synapse(x, Rows(2, 4)) * dy).sum().backward()
    part, packed.feedback_left.grad = packed.feedback_left.grad, None
    (packed(x) * F.pad(dy, (2, 2))).sum().backward()
    close(part, packed.feedback_left.grad)
