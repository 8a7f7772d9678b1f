"""A rule that is checked, the small networks that learn by it, and what is compared in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.trainers.conformance.requirements import require
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.rules.base import Rule
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.perturbed import Perturbed


def perceptron() -> nn.Module:
    """Return three dense layers."""
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def convolutional() -> nn.Module:
    """Return strided, grouped and transposed convolutions, activations in place, batch norm and a dense layer."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(4, 3, 2),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


Kinds = dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]
NETWORKS: Kinds = {"dense": (perceptron, (7, 6)), "conv": (convolutional, (7, 2, 8, 8))}
"""By kind, the function that builds a network, and the shape of a batch."""
LAYERS: Kinds = {
    "one dense": (lambda: nn.Linear(6, 5), (7, 6)),
    "one conv": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten()), (4, 2, 5, 5)),
    "one transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2, stride=2), nn.Flatten()), (4, 2, 3, 3)),
}
"""The same for networks of one layer, whose outputs are (batch, classes)."""


@dataclass(frozen=True)
class Subject:
    """A rule that is checked.

    Examples
    --------
    >>> from wtdiag.trainers.rules import rule
    >>> net, x, target = Subject(rule("fa")).network("dense")
    >>> net(x).shape
    torch.Size([7, 3])
    """

    rule: Rule

    @property
    def direct(self) -> bool:
        """Whether the rule projects the output's error."""
        return isinstance(self.rule, Direct)

    @property
    def without_noise(self) -> Subject:
        """The same rule without noise on the activity, which would hide what two passes have in common."""
        if not isinstance(self.rule, Perturbed) or self.rule.passes_twice:
            return self
        silent: Any = type("Silent", (type(self.rule),), {"draw": lambda rule, x: torch.zeros_like(x)})
        return Subject(silent(**{each.name: getattr(self.rule, each.name) for each in dataclasses.fields(self.rule)}))

    def network(self, kind: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
        """Return a network that learns by the rule, a batch of inputs and its targets, always the same."""
        torch.manual_seed(0)
        make, shape = (NETWORKS | LAYERS)[kind]
        native, x = make().to(dtype=dtype), torch.randn(shape, dtype=dtype)
        return transport_free(native, self.rule, sample=x), x, torch.arange(len(x)) % 3


def descend(run: Any, x: Tensor, target: Tensor, seed: int = 1) -> None:
    """Do one forward and backward pass under a seed."""
    torch.manual_seed(seed)
    torch.autograd.backward(F.cross_entropy(run(x), target))


def gradients(net: nn.Module, which: str = "") -> dict[str, Tensor]:
    """Return the gradients of the parameters whose own names contain ``which``; B's factors contain "feedback"."""
    found = {name: p.grad for name, p in net.named_parameters() if which in name.rpartition(".")[2]}
    return {name: grad for name, grad in found.items() if grad is not None}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Return whether two sets of tensors are bitwise the same."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def require_close(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float, what: str) -> None:
    """Require that tensors differ by at most ``tolerance``, relative to each one's norm.

    Raises
    ------
    Violation
        If one is missing or differs; it names the first.
    """
    require(got.keys() == expected.keys(), f"{what}: gradients of other parameters: {_unlike(got, expected)}")
    largest = max((float(value.norm()) for value in expected.values()), default=0.0)
    for key, value in expected.items():
        scale = max(float(value.norm()), 1e-6 * largest)  # a gradient that is zero but for rounding has no direction
        apart = float((got[key].to(value.dtype) - value).norm())
        require(apart <= tolerance * scale, f"{what}: the gradient of {key} differs by {apart / (scale or 1):.1e}")


def change_weights(net: nn.Module) -> None:
    """Draw all forward weights anew, in place and unseen by autograd."""
    for _, layer in synapses(net):
        layer.weight.data.copy_(torch.randn_like(layer.weight))


def _unlike(got: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    return ", ".join(sorted(got.keys() ^ expected.keys()))
