"""Built-in models: their layers, sizes, initialisation, and what cannot be built."""

from math import prod

import pytest
import torch
from torch import nn

from wtdiag.probes.errors import InputError
from wtdiag.trainers.models import build, names

OURS = ["mlp", "conv", "resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "transformer", "lstm"]


def weight_layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13)])
@pytest.mark.parametrize("name", ["mlp", "conv", "resnet8"])
def test_every_parameter_of_our_models_learns(name, shape, batch_norm):
    torch.manual_seed(0)
    model = build(name, classes=5, shape=shape, width=4, batch_norm=batch_norm)
    y = model(torch.randn(16, *shape))
    assert y.shape == (16, 5)
    nn.functional.cross_entropy(y, torch.arange(16) % 5).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, key
    assert any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in model.modules()) == batch_norm


@pytest.mark.parametrize("name", ["mlp", "conv", "resnet8"])
def test_activations_of_each_example_are_normalised_without_parameters(name):
    models = {}
    for given in ({}, {"activation_norm": True}):
        torch.manual_seed(0)
        models[bool(given)] = build(name, classes=5, shape=(1, 8, 8), **given)
    plain, normalised = (model.state_dict() for model in (models[False], models[True]))
    assert plain.keys() == normalised.keys()
    assert all(torch.equal(plain[key], normalised[key]) for key in plain)
    seen = []
    for module in models[True].modules():
        if isinstance(module, nn.Sequential) and isinstance(module[0], nn.ReLU):
            module.register_forward_hook(lambda module, x, y: seen.append((x[0], y)))
    models[True](torch.randn(4, 1, 8, 8))
    assert len(seen) == len([m for m in models[True].modules() if isinstance(m, nn.ReLU)]) > 2
    for x, y in seen:
        own = x.clamp_min(0).flatten(1)
        own = (own - own.mean(1, keepdim=True)) / (own.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(y.flatten(1), own, rtol=1e-4, atol=1e-5)


def test_activations_that_cannot_be_normalised_are_refused():
    for name in ("transformer", "lstm", "squeezenet1_1"):
        with pytest.raises(InputError, match=f"activation_norm: cannot be had in '{name}'"):
            build(name, classes=2, shape=(3, 32, 32), activation_norm=True)
    with pytest.raises(InputError, match="activation_norm: needs layers of two units"):
        build("mlp", classes=2, shape=(1, 4, 4), width=1, activation_norm=True)


def test_names_of_layers_and_number_of_weight_layers():
    shape = (1, 16, 16)
    assert list(weight_layers(build("mlp", classes=3, shape=shape))) == ["fc1", "fc2", "fc3", "fc4"]
    assert list(weight_layers(build("mlp", classes=3, shape=shape, depth=1))) == ["fc1"]
    assert list(weight_layers(build("conv", classes=3, shape=shape, depth=4))) == [
        "conv1",
        "conv2",
        "conv3",
        "fc",
    ]
    assert list(weight_layers(build("resnet8", classes=3, shape=shape)))[:3] == [
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
    ]
    for depth in (8, 20, 32, 44, 56, 110):
        assert len(weight_layers(build(f"resnet{depth}", classes=3, shape=shape, width=2))) == depth


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 8, 20])
def test_conv_spreads_its_layers_over_three_stages(depth):
    model = build("conv", classes=3, shape=(2, 16, 16), depth=depth, width=4)
    convs = [m for m in model if isinstance(m, nn.Conv2d)]
    channels = [m.out_channels for m in convs]
    assert len(convs) == depth - 1
    assert channels == sorted(channels)
    counts = [channels.count(c) for c in (4, 8, 16)]
    assert sum(counts) == depth - 1
    assert max(counts) - min(counts) <= 1
    # A stride wherever the channels double, nowhere else.
    assert [m.stride[0] for m in convs] == [
        1 + (m.out_channels == 2 * m.in_channels and i > 0) for i, m in enumerate(convs)
    ]


def test_conv_doubles_channels_at_most_once_a_stage():
    x = torch.randn(2, 1, 16, 16)
    model = build("conv", classes=3, shape=(1, 16, 16))
    maps = []
    for layer in model:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            maps.append(tuple(x.shape[1:]))
    assert maps == [(16, 16, 16)] * 2 + [(32, 8, 8)] * 2 + [(64, 4, 4)] * 2


@pytest.mark.parametrize("depth", [8, 20])
def test_resnet_has_the_parameters_of_its_definition(depth):
    n, w, classes = (depth - 2) // 6, 16, 10
    conv = 9 * (3 * w + 2 * n * w**2)  # stem and first stage
    conv += 9 * (2 * w**2 + (2 * n - 1) * 4 * w**2)
    conv += 9 * (8 * w**2 + (2 * n - 1) * 16 * w**2)
    norm = 2 * (w + 2 * n * (w + 2 * w + 4 * w))
    model = build(f"resnet{depth}", classes=classes, shape=(3, 32, 32))
    assert sum(p.numel() for p in model.parameters()) == conv + norm + 4 * w * classes + classes


def test_resnet_shortcut_strides_and_pads_with_zeros():
    torch.manual_seed(0)
    model = build("resnet8", classes=3, shape=(1, 8, 8), width=2).eval()
    block = model.layer2[0]
    with torch.no_grad():
        block.bn2.weight.zero_()  # silence the branch: the shortcut remains
        block.bn2.bias.zero_()
        x = torch.rand(2, 2, 8, 8)
        y = block(x)
    assert y.shape == (2, 4, 4, 4)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2])
    assert y[:, 2:].abs().max() == 0


def test_he_initialisation():
    torch.manual_seed(0)
    for name, shape in (("mlp", (1, 16, 16)), ("conv", (3, 8, 8)), ("resnet8", (3, 8, 8))):
        for key, layer in weight_layers(build(name, classes=64, shape=shape, width=64)).items():
            fan_in = prod(layer.weight.shape[1:])
            sd = layer.weight.std().item()
            assert sd == pytest.approx((2 / fan_in) ** 0.5, rel=5 / layer.weight.numel() ** 0.5), (name, key)
            assert layer.bias is None or layer.bias.abs().max() == 0


@pytest.mark.parametrize("depth", [8, 56, 110])
def test_resnet_without_batch_norm_keeps_its_signal(depth):
    torch.manual_seed(0)
    model = build(f"resnet{depth}", classes=10, shape=(3, 16, 16), batch_norm=False)
    with torch.no_grad():
        x = model.relu(model.conv1(torch.randn(32, 3, 16, 16)))
        y = model.layer3(model.layer2(model.layer1(x)))
    growth = float(y.square().mean() / x.square().mean())
    assert 0.05 < growth < 7.4  # below e^2 by construction; plain He: 4e11 at depth 110


def test_same_seed_same_model():
    def draw():
        torch.manual_seed(3)
        return build("resnet8", classes=3, shape=(1, 8, 8)).state_dict()

    assert all(torch.equal(a, b) for a, b in zip(draw().values(), draw().values(), strict=True))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (1, 16, 16)),
        ("mnasnet0_5", (3, 32, 32)),
        ("googlenet", (3, 32, 32)),
        ("inception_v3", (3, 80, 80)),
        ("vit_b_16", (3, 32, 32)),
        ("maxvit_t", (1, 224, 224)),
        ("regnet_x_400mf", (3, 32, 32)),
    ],
)
def test_torchvision_models_run_as_built(name, shape):
    before = torch.get_rng_state()
    model = build(name, classes=4, shape=shape)
    after_build = torch.get_rng_state()
    torch.set_rng_state(before)
    assert model.training
    # The shape check must leave no trace: running statistics untouched, nothing left on the meta device.
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"cpu"}
    for key, buffer in model.named_buffers():
        if key.endswith(("num_batches_tracked", "running_mean")):
            assert not buffer.any(), key
    assert not torch.equal(after_build, before)  # initialised from the global state
    with torch.no_grad():
        assert model.eval()(torch.randn(1, *shape)).shape == (1, 4)


def test_a_grey_image_is_repeated_for_torchvision():
    grey = build("resnet18", classes=3, shape=(1, 16, 16)).eval()
    assert next(iter(weight_layers(grey))) == "net.conv1"
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(grey(x), grey.net(x.repeat(1, 3, 1, 1)))


def test_batch_norm_of_torchvision_models():
    assert not any(isinstance(m, nn.BatchNorm2d) for m in build("vgg11", classes=2, shape=(3, 32, 32)).modules())
    build("squeezenet1_1", classes=2, shape=(3, 32, 32), batch_norm=False)  # never had any
    with pytest.raises(InputError, match="batch_norm: cannot be switched off for 'vgg11_bn'; use 'vgg11'"):
        build("vgg11_bn", classes=2, shape=(3, 32, 32), batch_norm=False)
    with pytest.raises(InputError, match="batch_norm: cannot be switched off for 'resnet18'"):
        build("resnet18", classes=2, shape=(3, 32, 32), batch_norm=False)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet21", {}, "model: 'resnet21' is not known; did you mean 'resnet"),
        (
            "resnet20",
            {"depth": 5},
            "depth: 5 cannot be used, because 'resnet20' fixes it; it can be chosen for mlp",
        ),
        ("resnet18", {"width": 5}, "width: 5 cannot be used, because 'resnet18' fixes it; .* mlp, conv, resnet8"),
        ("mlp", {"depth": 0}, "depth: 0 is not positive"),
        ("mlp", {"width": -1}, "width: -1 is not positive"),
        ("mlp", {"classes": 0}, "classes: 0 is not positive"),
        ("mlp", {"shape": (1, 0, 8)}, r"shape \(1, 0, 8\): 0 is not positive"),
        ("conv", {"depth": 1}, "depth: 1 is too small for 'conv'; expected at least 2"),
        ("alexnet", {"shape": (3, 32, 32)}, "model: 'alexnet' cannot take 3x32x32 images"),
        ("squeezenet1_1", {"shape": (1, 8, 8)}, "model: 'squeezenet1_1' cannot take 1x8x8 images"),
        ("vit_b_16", {"shape": (3, 16, 32)}, "model: 'vit_b_16' takes square images, not 16x32"),
        ("vit_b_16", {"shape": (3, 24, 24)}, "model: 'vit_b_16' cannot take 3x24x24 images"),
        ("resnet18", {"shape": (2, 32, 32)}, "model: 'resnet18' takes images of 3 channels"),
    ],
)
def test_what_cannot_be_built(name, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        build(name, **{"classes": 3, "shape": (3, 32, 32), **arguments})
    assert "\n" not in str(caught.value)


def test_names_are_ours_then_torchvision():
    assert list(names()[: len(OURS)]) == OURS
    assert {"resnet18", "vgg11_bn", "vit_b_16"} < set(names())
    assert len(names()) == len(set(names()))
