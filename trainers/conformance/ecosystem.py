"""Checks of a rule: it works in the rest of PyTorch."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from wtdiag.probes.errors import one_line
from wtdiag.trainers.conformance.requirements import Inapplicable, Violation, check, require
from wtdiag.trainers.conformance.subject import Subject, descend, gradients, require_close, same
from wtdiag.trainers.layers.convert import synapses, transport_free


def _draws(subject: Subject) -> bool:
    """Return whether the gradient of B depends on random numbers, which another precision draws in another way."""
    found = []
    for seed in range(2):
        net, x, target = subject.network("dense")
        descend(net, x, target, seed)
        found.append(gradients(net, "feedback"))
    return not same(*found)


def _but_for_noise(subject: Subject, grads: dict[str, Tensor]) -> dict[str, Tensor]:
    noisy = subject.rule.learned and _draws(subject)
    return {name: grad for name, grad in grads.items() if not (noisy and "feedback" in name)}


@check("Autocast computes in bfloat16 and leaves gradients in float32.")
def autocast(subject: Subject) -> str:
    """Require gradients in the parameters' precision, near those without autocast."""
    for kind in ("dense", "conv"):
        net, x, target = subject.without_noise.network(kind, torch.float32)
        reference = copy.deepcopy(net)
        descend(reference, x, target)
        dtypes: set[torch.dtype] = set()
        for _, layer in synapses(net):
            layer.register_forward_hook(lambda layer, inputs, output, seen=dtypes: seen.add(output.dtype))
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(x), target)
        require(dtypes == {torch.bfloat16}, f"{kind}: layers compute in {dtypes}")
        torch.autograd.backward(loss)
        for name, grad in gradients(net).items():
            require(grad.dtype == torch.float32, f"{kind}: the gradient of {name} is {grad.dtype}")
        expected = _but_for_noise(subject, gradients(reference))
        largest = max(float(grad.norm()) for grad in expected.values())
        felt = {name: grad for name, grad in expected.items() if grad.norm() > 1e-3 * largest}
        got = gradients(net)
        require(expected.keys() <= got.keys(), f"{kind}: gradients are missing under autocast")
        require_close({name: got[name] for name in felt}, felt, 0.15, kind)
    return ""


@check("A network in another precision has gradients in that precision.")
def precision(subject: Subject) -> str:
    """Require finite gradients of the network's own precision."""
    for dtype in (torch.float64, torch.bfloat16):
        net, x, target = subject.network("conv", dtype)
        descend(net, x, target)
        for name, grad in gradients(net).items():
            require(grad.dtype == dtype, f"{dtype}: the gradient of {name} is {grad.dtype}")
            require(bool(grad.isfinite().all()), f"{dtype}: the gradient of {name} is not finite")
        require(len(gradients(net, "weight")) == 5, f"{dtype}: a weight has no gradient")
    return ""


@check("torch.compile traces the network as one graph that learns the same.")
def compiled(subject: Subject) -> str:
    """Require one graph, whose gradients and feedback are those of the network, also after W has changed its signs."""
    if subject.rule.passes_twice:
        raise Inapplicable("It takes a second forward pass, which torch.compile cannot.")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager, x, target = subject.network("conv", torch.float32)
    traced = copy.deepcopy(eager)
    run = torch.compile(traced, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        for net in (eager, traced):
            net.zero_grad()
            for _, layer in synapses(net):
                layer.weight.data.mul_(-1.5)
        descend(eager, x, target, seed)
        descend(run, x, target, seed)
        # A scaled term is rounded before it is added in traced code, and not in eager code.
        require_close(gradients(traced), gradients(eager), 1e-4, "compiled")
        for (name, a), (_, b) in zip(synapses(traced), synapses(eager), strict=True):
            require(torch.equal(a.feedback, b.feedback), f"compiled: B of {name} is another")
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    require(graphs == 1, f"compiled: traced as {graphs} graphs")
    return ""


def _functional(net: nn.Module, x: Tensor, target: Tensor) -> Any:
    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(net, parameters, (x,)), target)

    return torch.func.grad(loss)


@check("torch.func.grad gives the gradients of backward().")
def function_transform(subject: Subject) -> str:
    """Require the same gradients from the function transform."""
    net, x, target = subject.network("conv")
    net.eval()  # in training, batch norm would write to its buffers
    reference = copy.deepcopy(net)
    descend(reference, x, target)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    torch.manual_seed(1)
    got = _functional(net, x, target)(parameters)
    expected = gradients(reference)
    require_close({name: got[name] for name in expected}, expected, 1e-9, "torch.func.grad")
    for name in got.keys() - expected.keys():
        require(not got[name].any(), f"torch.func.grad: {name} is fixed, but has a gradient")
    return ""


@check("torch.compile of torch.func.grad is refused where it would leave out the rule.")
def compiled_transform(subject: Subject) -> str:
    """Require the gradients of the network or a refusal: the compiler can lose a custom backward pass there."""
    torch._dynamo.reset()
    net, x, target = subject.network("dense", torch.float32)
    net.eval()
    reference = copy.deepcopy(net)
    descend(reference, x, target)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    torch.manual_seed(1)
    try:
        run: Any = torch.compile(_functional(net, x, target), backend="aot_eager")
        got = run(parameters)
    except Exception as error:  # the compiler wraps the refusal in an error of its own
        require("inside torch.func" in str(error), f"compiled torch.func.grad: {one_line(error):.200}")
        return "It is refused."
    expected = gradients(reference)
    require_close({name: got[name] for name in expected}, expected, 1e-4, "compiled torch.func.grad")
    return ""


@check("Checkpointed activations give the same gradients.")
def checkpointing(subject: Subject) -> str:
    """Require the same gradients where a block is computed again, or a refusal from a rule that cannot."""
    cannot = subject.direct or subject.rule.passes_twice
    torch.manual_seed(0)
    x, target = torch.randn(8, 6), torch.arange(8) % 5
    reference = transport_free(_Checkpointed(None), subject.rule, sample=x)
    descend(reference, x, target)
    for reentrant in (False, True):
        again = copy.deepcopy(reference)
        again.reentrant = reentrant  # type: ignore[assignment]
        again.zero_grad()
        if reentrant and cannot:
            try:
                descend(again, x, target)
            except RuntimeError as error:
                require("use_reentrant=False" in str(error), f"checkpointing: {one_line(error)}")
                continue
            raise Violation("checkpointing: use_reentrant=True is neither refused nor right")
        descend(again, x, target)
        require_close(gradients(again), gradients(reference), 1e-6, f"checkpointing, use_reentrant={reentrant}")
    return "use_reentrant=True is refused." if cannot else ""


class _Checkpointed(nn.Module):
    """Four layers, of which those in the middle, dropout among them, may run again in the backward pass."""

    reentrant: bool | None

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Linear(6, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.body(x) if self.reentrant is None else checkpoint(self.body, x, use_reentrant=self.reentrant)
        return self.head(x)  # type: ignore[no-any-return]


@check("DistributedDataParallel gives the same gradients.")
def distributed(subject: Subject) -> str:
    """Require the same gradients in a group of one process."""
    net, x, target = subject.network("conv", torch.float32)
    reference = copy.deepcopy(net)
    descend(reference, x, target)
    ours = not torch.distributed.is_initialized()
    if ours:
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        descend(DistributedDataParallel(net), x, target)
    finally:
        if ours:
            torch.distributed.destroy_process_group()
    require_close(gradients(net), gradients(reference), 1e-5, "DistributedDataParallel")
    return ""


@check("Copies, pickles and networks loaded from a state_dict learn the same, and share nothing.")
def copies(subject: Subject) -> str:
    """Require the same gradients from every kind of copy, bit by bit."""
    net, x, target = subject.network("conv")
    fresh, _, _ = subject.network("conv")
    for _, layer in synapses(fresh):
        for parameter in layer.parameters_of("feedback"):
            parameter.data.add_(1.0)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    twins = {"deepcopy": copy.deepcopy(net), "pickle": pickle.loads(pickle.dumps(net)), "state_dict": fresh}
    descend(net, x, target)
    for how, twin in twins.items():
        descend(twin, x, target)
        require(same(gradients(twin), gradients(net)), f"{how}: the copy learns something else")
        shared = {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in net.parameters()}
        require(not shared, f"{how}: the copy shares memory with the original")
    return ""
