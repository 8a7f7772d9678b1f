"""Whole networks from torchvision, as small as their classes allow, and activations in place."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trainers.layers.mixed_network import train_step
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.rules import RULES, rule


def convnext() -> nn.Module:
    block = torchvision.models.convnext.CNBlockConfig
    return torchvision.models.ConvNeXt([block(8, 16, 1), block(16, None, 1)], num_classes=5)


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
