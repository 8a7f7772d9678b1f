"""Converted networks inside the rest of PyTorch: compilation, precision, checkpointing, optimisers, processes."""

import copy
import io
import pickle
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.known_noise import driven_back, mirrored
from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.rules import RULES, rule
from wtdiag.trainers.rules.local import Local

LEARNED = [name for name in RULES if RULES[name].learned]
COMPILED = [name for name in RULES if name != "np"]  # which takes a second forward pass
SUM = {"amp": 0.07, "null": 0.03, "decay": 0.02, "sparse": 0.05, "self": 0.04}


def native() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5)
    )


def build(name: str) -> nn.Module:
    return transport_free(native(), rule(name, **(SUM if name == "sum" else {})), sample=torch.zeros(1, 2, 6, 6))


def batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(8, 2, 6, 6), torch.arange(8) % 5


def step(net: nn.Module, x: Tensor, target: Tensor, seed: int = 2) -> None:
    torch.manual_seed(seed)
    F.cross_entropy(net(x), target).backward()


def gradients(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def assert_same(a: nn.Module, b: nn.Module, **tolerance: float) -> None:
    got, expected = gradients(a), gradients(b)
    assert got.keys() == expected.keys()
    assert any(name.endswith("weight") for name in got)
    for name in got:
        torch.testing.assert_close(got[name], expected[name], **(tolerance or {"rtol": 0, "atol": 0}))


# torch.compile


def test_a_traced_network_knows_which_layers_carry_error():
    torch._dynamo.reset()
    eager, traced = build("ia"), build("ia")
    x, target = batch()
    step(eager, x, target)
    step(torch.compile(traced, fullgraph=True, backend="aot_eager"), x, target)
    assert [a.carries_error for _, a in synapses(traced)] == [a.carries_error for _, a in synapses(eager)]


class EveryRule(nn.Module):
    """A convolution, a transposed one and a dense layer under each rule: one graph, so that it is compiled once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ConvTranspose2d(3, 2, 2), nn.Flatten(), nn.Linear(32, 5)
        sample = torch.zeros(1, 2, 6, 6)
        for name in COMPILED:
            built = rule(name, **(SUM if name == "sum" else {}))
            self.add_module(name, transport_free(nn.Sequential(*layers), built, sample=sample))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.children()], dim=2)


@pytest.mark.slow
def test_generated_code_learns_the_same(monkeypatch):
    monkeypatch.setattr(Local, "mirror", mirrored)
    monkeypatch.setattr(Local, "driven_back", driven_back)
    torch._dynamo.reset()
    eager = EveryRule()
    generated, exact = copy.deepcopy(eager), copy.deepcopy(eager).double()
    compiled = torch.compile(generated, fullgraph=True)
    x, target = batch()
    found = []
    for net, x_, run in ((generated, x, compiled), (eager, x, eager), (exact, x.double(), exact)):
        x_ = x_.clone().requires_grad_()
        with torch._inductor.config.patch(fallback_random=True):
            torch.manual_seed(2)
            F.cross_entropy(run(x_), target[:, None].expand(-1, len(COMPILED)), reduction="sum").backward()
        found.append(gradients(net) | {"x": x_.grad})
        if net is generated:  # its layers may draw their magnitudes in any order; the others take those that it drew
            drawn = generated.brsf.state_dict()
            assert not torch.equal(drawn["0.feedback"], eager.brsf[0].feedback)
            for other in (eager, exact):
                other.brsf.load_state_dict(drawn)
            monkeypatch.setattr(
                RULES["brsf"], "refresh", lambda self, weight, feedback, std: self.tie(weight, feedback)
            )
    assert found[0].keys() == found[1].keys() == found[2].keys()
    for key, got in found[0].items():
        for other in found[1:]:
            assert (got - other[key]).norm() <= 1e-4 * other[key].norm() + 1e-6, key  # of zero, rounding is left


# Precision and memory layout


def test_autocast_backprop_equals_native_bit_by_bit():
    net, plain = build("bp"), native()
    x, target = batch()
    for each in (net, plain):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(each(x), target)
        loss.backward()
    assert_same(net, plain)


def test_kolen_pollack_contracts_under_autocast():
    net, (x, target) = build("kp"), batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(net(x), target)
    loss.backward()
    for _, layer in synapses(net):  # W and B take the very same rounded product: only their decay differs
        difference = layer.rule.decay * (layer.weight - layer.feedback).detach()
        torch.testing.assert_close(layer.weight.grad - layer.feedback.grad, difference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_channels_last(name):
    net, reference = build(name).to(memory_format=torch.channels_last), build(name)
    x, target = batch()
    step(reference, x, target)
    step(net, x.to(memory_format=torch.channels_last), target)
    for key, grad in gradients(net).items():
        if name != "brsf" and (
            name not in ("wm", "ldrl") or "feedback" not in key
        ):  # what is drawn follows the memory order
            torch.testing.assert_close(grad, gradients(reference)[key], rtol=1e-3, atol=1e-5, msg=key)
    assert net(x.to(memory_format=torch.channels_last))[0].isfinite().all()


# Optimisers


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, foreach=True),
        lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
        lambda p: torch.optim.AdamW(p, lr=1e-2),
        lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
        lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
        lambda p: torch.optim.RMSprop(p, lr=1e-2),
    ],
    ids=["nesterov", "sgd-foreach", "sgd-fused", "adamw", "adamw-foreach", "adamw-fused", "rmsprop"],
)
@pytest.mark.filterwarnings("ignore:kp.* moves W and B differently")  # as optimisers that rescale gradients do
@pytest.mark.parametrize("name", ["bp", "fa", "brsf", "kp", "ia", "dfa"])
def test_any_optimiser_trains_what_learns(name, make):
    net, (x, target) = build(name), batch()
    optimizer = make(net.parameters())
    before = {key: p.detach().clone() for key, p in net.named_parameters()}
    for seed in range(2):
        optimizer.zero_grad()
        step(net, x, target, seed)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    for key, p in net.named_parameters():
        assert p.isfinite().all()
        if key.endswith("feedback") and not RULES[name].learned:
            assert p not in optimizer.state or not optimizer.state[p]
            assert name == "brsf" or torch.equal(p, before[key])
        else:
            assert not torch.equal(p, before[key]), key


@pytest.mark.filterwarnings("ignore:kp.* moves W and B differently")  # as optimisers that rescale gradients do
@pytest.mark.parametrize("name", LEARNED)
def test_optimiser_state_resumes_the_same_run(name):
    x, target = batch()

    def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for t in steps:
            optimizer.zero_grad()
            step(net, x, target, seed=t)
            optimizer.step()

    whole = build(name)
    train(whole, torch.optim.AdamW(whole.parameters()), range(4))
    half = build(name)
    optimizer = torch.optim.AdamW(half.parameters())
    train(half, optimizer, range(2))
    file = io.BytesIO()
    torch.save({"model": half.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    rest = build(name)
    rest.load_state_dict(saved["model"])
    optimizer = torch.optim.AdamW(rest.parameters())
    optimizer.load_state_dict(saved["optimizer"])
    train(rest, optimizer, range(2, 4))
    for a, b in zip(rest.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", RULES)
def test_a_network_built_on_meta_loads(name):
    net, (x, target) = build(name), batch()
    with torch.device("meta"):
        empty = build(name)
    assert all(p.is_meta for p in empty.parameters())
    empty.load_state_dict(net.state_dict(), assign=True)
    for _, layer in synapses(empty):
        assert layer.weight.device.type == "cpu"
    step(net, x, target)
    step(empty, x, target)
    trained = {key: grad for key, grad in gradients(empty).items() if RULES[name].learned or "feedback" not in key}
    assert len(trained) > 3
    for key, grad in trained.items():
        assert torch.equal(grad, gradients(net)[key])


@pytest.mark.parametrize("name", [name for name in RULES if name != "bp"])
def test_feedback_that_was_made_on_meta_is_drawn_with_the_weights(name):
    original, expected, (x, target) = native(), build(name), batch()
    for way in ("empty", "assigned", "empty and loaded"):
        with torch.device("meta"):
            net = build(name)
        if way != "assigned":
            net.to_empty(device="cpu")
        if way == "empty":
            for part in net:
                getattr(part, "reset_parameters", lambda: None)()
        else:  # the weights of a network without feedback
            net.load_state_dict(original.state_dict(), assign=way == "assigned", strict=False)
        step(net, x, target)  # in which B follows W if the rule ties them
        for key, like in expected.named_parameters():
            if "feedback" in key:
                drawn = net.get_parameter(key)
                assert drawn.std().item() == pytest.approx(like.std().item(), rel=0.5, abs=1e-6)
                assert drawn.requires_grad == like.requires_grad
        assert all(grad.isfinite().all() for grad in gradients(net).values())


def test_feedback_without_values_is_refused_and_not_taken_for_zero():
    net = transport_free(nn.Linear(4, 3, device="meta"), "fa")
    net.weight, net.bias = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3))
    with pytest.raises(InputError, match=r"fa: the feedback of Linear\(.*\) has no values; load them, or use to_empty"):
        net(torch.ones(2, 4))


def test_a_weight_that_is_assigned_under_backprop_is_the_only_one():
    net = build("bp")
    net[5].weight = nn.Parameter(torch.zeros(5, 64))
    assert net[5].feedback is net[5].weight
    assert "5.feedback" not in dict(net.named_parameters())


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_computes_the_same_and_is_not_trained_by_backprop(strict):
    torch._dynamo.reset()
    net, (x, target) = build("fa").eval(), batch()
    program = torch.export.export(net, (x,), strict=strict).module()
    torch.testing.assert_close(program(x), net(x))
    with pytest.raises(RuntimeError, match="does not require grad"):
        F.cross_entropy(program(x), target).backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
def test_parts_that_are_compiled_by_torchscript_stay_trainable():
    script = torch.jit.script(nn.Sequential(nn.Linear(5, 5), nn.Tanh()))
    script[0].bias.requires_grad_(False)
    net = transport_free(nn.Sequential(nn.Linear(4, 5), script, nn.Linear(5, 3)), "fa")
    assert [(key, p.is_leaf, p.requires_grad) for key, p in net.named_parameters() if key[0] == "1"] == [
        ("1.0.weight", True, True), ("1.0.bias", True, False)
    ]  # fmt: skip
    before = [p.detach().clone() for p in net[1].parameters()]
    net(torch.randn(6, 4)).square().sum().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    assert [torch.equal(a, b) for a, b in zip(before, net[1].parameters(), strict=True)] == [False, True]


def test_backprop_keeps_its_one_matrix_when_parameters_are_made_anew():
    net = build("bp")
    for each in (
        net.to("meta").to_empty(device="cpu"),
        net.double(),
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
    ):
        assert all(layer.feedback is layer.weight for _, layer in synapses(each))
    net.load_state_dict({key: value.clone() for key, value in build("bp").state_dict().items()}, assign=True)
    assert all(layer.feedback is layer.weight for _, layer in synapses(net))


def test_inference_mode_and_evaluation_leave_no_trace():
    for name in RULES:
        net, (x, _) = build(name).eval(), batch()
        state = copy.deepcopy(net.state_dict())
        random = torch.get_rng_state()
        with torch.inference_mode():
            first = net(x)
        with torch.no_grad():
            second = net(x)
        assert torch.equal(first, second)
        assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), state.values(), strict=True))
        assert torch.equal(torch.get_rng_state(), random)


def test_gradients_accumulate_over_backward_passes():
    net, (x, target) = build("ia").eval(), batch()
    single = []
    for part in (slice(0, 4), slice(4, 8)):
        net.zero_grad()
        step(net, x[part], target[part])
        single.append(gradients(net))
    net.zero_grad()
    for part in (slice(0, 4), slice(4, 8)):
        step(net, x[part], target[part])
    for key, grad in gradients(net).items():
        torch.testing.assert_close(grad, single[0][key] + single[1][key])


# Two processes


def worker(rank: int, port: int, folder: str) -> None:
    """Train every rule for three steps beside another rank; write what this rank ended with."""
    torch.set_num_threads(1)
    store = torch.distributed.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    results: dict[str, dict[str, Tensor]] = {}
    for name in RULES:
        net = build(name)
        if rank:
            for p in net.parameters():  # wrapping has to bring rank 0's weights, feedback included
                p.data.add_(1.0)
        parallel = DistributedDataParallel(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
        for t in range(3):
            optimizer.zero_grad()
            x, target = batch(seed=10 * t + rank)
            step(parallel, x, target, seed=rank)
            if t == 0:
                results |= {f"{name} first {key}": {"grad": grad.clone()} for key, grad in gradients(net).items()}
            optimizer.step()
        for key, p in net.named_parameters():
            results[f"{name} {key}"] = {"value": p.detach()} | ({} if p.grad is None else {"grad": p.grad})
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(worker, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_two_processes_stay_equal(name, ranks):
    mine = [{key: value for key, value in rank.items() if key.startswith(f"{name} ")} for rank in ranks]
    assert mine[0].keys() == mine[1].keys()
    learned = [key for key in mine[0] if key.endswith(("feedback", "feedback_right")) and "first" not in key]
    assert len(learned) == (0 if name == "bp" else 3)
    for key in mine[0]:
        assert mine[0][key].keys() == mine[1][key].keys()
        for what, value in mine[0][key].items():
            if name == "brsf" and key.endswith("feedback"):
                continue  # each rank draws its own magnitudes, as it draws its own batch
            assert torch.equal(value, mine[1][key][what]), (key, what)
    for key in learned:
        assert ("grad" in mine[0][key]) is RULES[name].learned
    if learned and not (RULES[name].tied or RULES[name].learned):  # not decayed, not moved
        fresh = dict(build(name).named_parameters())
        for key in learned:
            assert torch.equal(mine[0][key]["value"], fresh[key.removeprefix(f"{name} ")])


@pytest.mark.noisy
@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_two_processes_average_their_gradients(name, ranks):
    grads = []
    for rank in range(2):
        net = build(name)
        x, target = batch(seed=rank)
        step(net, x, target, seed=rank)
        grads.append(gradients(net))
    for key in grads[0]:
        got = ranks[0][f"{name} first {key}"]["grad"]
        torch.testing.assert_close(got, (grads[0][key] + grads[1][key]) / 2, rtol=1e-4, atol=1e-6)
