"""The means by which a run is computed change what it costs, and not what it learns."""

import dataclasses
from itertools import islice

import pytest
import torch
from torch import nn

from wtdiag.probes.errors import InputError
from wtdiag.trainers import models
from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data import load
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.loop import fit
from wtdiag.trainers.loop.cost import measure
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.recompute import recompute_activations
from wtdiag.trainers.observe.open_run import open_run
from wtdiag.trainers.record import checkpoint
from wtdiag.trainers.rules import RULES

QUICK = Settings(precision="float64", epochs=1, batch_size=512, snapshots=2, device="cpu", seed=5)


def train(path, settings, stop=None, **how):
    training = Training(settings, path, **how)
    steps = iter(training)
    for _ in islice(steps, stop):
        pass
    steps.close()
    return training


@pytest.mark.parametrize("rule", RULES)
def test_activations_computed_again_change_nothing(rule, tmp_path):
    settings = dataclasses.replace(QUICK, rule=rule, depth=4, width=6)
    plain, again = (
        train(tmp_path / str(means), dataclasses.replace(settings, checkpoint_activations=means))
        for means in (False, True)
    )
    for (name, value), other in zip(plain.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_activations_computed_again_save_memory():
    settings = Settings(rule="fa", model="resnet32", width=4, epochs=1, checkpoint_activations=True)
    data = load("digits")
    again, plain = (
        measure(dataclasses.replace(settings, checkpoint_activations=means), data).memory for means in (True, False)
    )
    assert again < 0.5 * plain
    with pytest.raises(InputError, match=r"checkpoint_activations: Linear has no nn.Sequential of at least 4 modules"):
        recompute_activations(nn.Linear(2, 2))


def test_channels_last_learns_the_same_and_is_resumed_bitwise(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", 0.0)
    settings = dataclasses.replace(
        QUICK, rule="ia", model="conv", depth=3, width=4, batch_size=64, optimizer="adam", lr=0.01, channels_last=True
    )
    whole = train(tmp_path / "whole", settings)
    train(tmp_path / "stopped", settings, stop=15)
    resumed = train(tmp_path / "stopped", settings, resume=True)
    plain = train(tmp_path / "plain", dataclasses.replace(settings, channels_last=False))
    kernels = [layer for _, layer in synapses(resumed.model) if layer.weight.dim() == 4]
    assert kernels
    for optimizer in resumed.learner.optimizers.values():
        for parameter, state in optimizer.state.items():
            assert all(value.stride() == parameter.stride() for value in state.values() if value.dim())
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key])
        torch.testing.assert_close(value, plain.model.state_dict()[key], rtol=1e-6, atol=1e-9)


def test_compiled_it_learns_the_same(tmp_path, monkeypatch):
    compiled = []
    settings = dataclasses.replace(QUICK, rule="wm-reg", depth=2, width=4)
    plain = train(tmp_path / "plain", settings)
    with monkeypatch.context() as patch:
        original = torch.compile

        def quick(network, **how):
            compiled.append(network)
            return original(network, backend="eager", **how)

        patch.setattr(torch, "compile", quick)
        again = train(tmp_path / "compiled", dataclasses.replace(settings, compile=True))
    assert compiled == [again.model]
    for key, value in plain.model.state_dict().items():
        torch.testing.assert_close(value, again.model.state_dict()[key], rtol=0, atol=1e-10)


def test_rules_are_compiled_one_after_the_other(tmp_path, monkeypatch):
    """The last batch of an epoch is smaller, and the compiler remembers sizes and coefficients that have varied."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **how: original(network, backend="aot_eager", **how))
    for rule in ("wm-reg", "ia", "kp"):
        settings = dataclasses.replace(QUICK, rule=rule, depth=2, width=4, epochs=2, compile=True)
        train(tmp_path / rule, settings)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it has not gone on without compiling


@pytest.mark.parametrize("given", [
    {"s_guard": True}, {"checkpoint_activations": True}, {"coefficients": {"amp": "linear:0.1:0"}},
])  # fmt: skip
def test_what_cannot_be_compiled_is_refused(given):
    with pytest.raises(InputError, match=r"compile: .*; leave out one of them"):
        Settings(rule="wm-reg", compile=True, **given)


def test_pretrained_weights_are_those_of_the_file(tmp_path):
    settings = Settings(rule="usf", depth=3, width=6)
    trained = train(tmp_path / "run", dataclasses.replace(QUICK, rule="bp", depth=3, width=6)).model
    weights = {key: value for key, value in trained.state_dict().items() if "feedback" not in key}
    file = tmp_path / "trained.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in weights.items()}}, file)
    ours = dataclasses.replace(settings, pretrained=str(file))
    network = build_network(ours, shape=(1, 8, 8), classes=10, begins=True).state_dict()
    for key, value in weights.items():
        assert torch.equal(network[key], value.to(network[key].dtype))
    assert torch.equal(network["fc2.feedback"].sign(), network["fc2.weight"].sign())
    with pytest.warns(UserWarning, match="fc3 has 10 outputs in .* and 4 in the model; it keeps its initial weights"):
        fewer = build_network(ours, shape=(1, 8, 8), classes=4, begins=True).state_dict()
    assert torch.equal(fewer["fc1.weight"], network["fc1.weight"])
    fresh = build_network(settings, shape=(1, 8, 8), classes=4).state_dict()
    assert torch.equal(fewer["fc3.weight"], fresh["fc3.weight"])


def test_a_resumed_run_needs_the_pretrained_weights_no_more(tmp_path):
    settings = dataclasses.replace(QUICK, rule="fa", depth=2, width=6, batch_size=64, pretrained=str(tmp_path / "w.pt"))
    converted = build_network(Settings(rule="bp", depth=2, width=6), shape=(1, 8, 8), classes=10)
    torch.save(converted.state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="feedback is not in the model"):
        train(tmp_path / "run", settings)
    torch.save(models.build("mlp", classes=10, shape=(1, 8, 8), depth=2, width=6).state_dict(), tmp_path / "w.pt")
    train(tmp_path / "run", settings, stop=3)
    (tmp_path / "w.pt").unlink()
    train(tmp_path / "run", settings, resume=True)
    assert checkpoint.load(tmp_path / "run")["step"] == 23
    recorded = open_run(tmp_path / "run")
    assert recorded.config["settings"]["pretrained"] == str(tmp_path / "w.pt")
    assert torch.equal(recorded.model(23).fc1.weight, checkpoint.load(tmp_path / "run")["model"]["fc1.weight"])


@pytest.mark.parametrize(("content", "message"), [
    (None, "pretrained: .*: no such file; torchvision publishes no weights for 'mlp'"),
    (b"no weights", "pretrained: .* cannot be read as weights"),
    ([1, 2], "pretrained: .* holds no state dict; expected names with tensors"),
    ({"fc1.weight": torch.ones(2, 2)}, "pretrained: .* does not fit 'mlp': .* is missing there"),
])  # fmt: skip
def test_unusable_pretrained_weights_are_named(tmp_path, content, message):
    file = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(InputError, match=message):
        build_network(Settings(depth=2, pretrained=str(file)), shape=(1, 8, 8), classes=10, begins=True)
