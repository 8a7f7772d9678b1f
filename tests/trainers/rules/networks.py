"""Small networks by every rule in float64, their gradients, and which rules are of which family."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.trainers.conformance.subject import NETWORKS
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.rules import RULES, Rule, rule
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.factored import Factored
from wtdiag.trainers.rules.perturbed import Perturbed

LEARNED = [name for name in RULES if RULES[name].learned]
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


def change_weights(net: nn.Module) -> None:
    for _, layer in synapses(net):
        layer.weight.data.copy_(torch.randn_like(layer.weight))


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


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
