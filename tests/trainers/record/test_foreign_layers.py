"""Recording of networks that other code converted, BioTorch's among them."""

import contextlib
import importlib
import io
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wtdiag import Recorder, analyze, diagnose, open_run, transport_free
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_snapshot, read_signals, snapshot_path
from wtdiag.trainers.callbacks.live import live_measures


class Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, feedback):
        ctx.save_for_backward(x, feedback)
        return x @ weight.T

    @staticmethod
    def backward(ctx, dy):
        x, feedback = ctx.saved_tensors
        return dy @ feedback, dy.T @ x, None


class Mine(nn.Linear):
    """A layer of someone's own, which keeps its feedback in ``back``."""

    def __init__(self, *sizes):
        super().__init__(*sizes, bias=False)
        self.register_buffer("back", torch.randn_like(self.weight))

    def forward(self, x):
        return Adjoint.apply(x, self.weight, self.back)


@pytest.fixture
def net():
    torch.manual_seed(0)
    # Registered in another order than they run.
    layers = nn.ModuleDict({"top": Mine(6, 3), "low": Mine(4, 5), "middle": Mine(5, 6)})

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers
            self.scale = nn.Parameter(torch.ones(3), requires_grad=False)

        def forward(self, x):
            for name in ("low", "middle", "top"):
                x = self.layers[name](torch.relu(x))
            return self.scale * x

    return Net()


def train(net, recorder, steps=3):
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    for step in range(steps):
        loss = F.cross_entropy(net(x), y)
        net.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.snapshot(step, loss=loss)


def by_function(net):
    return {name: (layer.weight, layer.back.numpy()) for name, layer in net.layers.items()}


NAMED = {name: (f"layers.{name}.weight", f"layers.{name}.back") for name in ("low", "middle", "top")}


@pytest.mark.parametrize("pairs", ["back", NAMED, by_function], ids=["attribute", "names", "function"])
def test_pairs_are_found_by_attribute_by_name_and_by_function(net, tmp_path, pairs):
    with Recorder(net, tmp_path / "run", pairs=pairs) as recorder:
        train(net, recorder)
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [0, 1, 2]
    assert (run.config["status"], run.config["foreign"]) == ("finished", "Recorder")
    for name in ("low", "middle", "top"):
        layer = run.layer(name if callable(pairs) or isinstance(pairs, dict) else f"layers.{name}")
        np.testing.assert_array_equal(layer.forward.values[-1], net.layers[name].weight.detach())
        np.testing.assert_array_equal(layer.feedback.values[-1], net.layers[name].back)
        assert not np.array_equal(layer.forward.values[0], layer.forward.values[-1])
    assert list(run.state(2)) == ["scale"]


def test_the_first_pass_shows_the_order_and_the_layer_that_sends_no_error(net, tmp_path):
    with Recorder(net, tmp_path / "run", pairs="back") as recorder:
        train(net, recorder)
    analysis = analyze(tmp_path / "run")
    assert analysis.layer.values.tolist() == ["layers.low", "layers.middle", "layers.top"]
    assert analysis.carries_error.values.tolist() == [False, True, True]
    assert not net.layers["low"]._forward_hooks
    w, b = net.layers["top"].weight.detach(), net.layers["top"].back
    angle = torch.rad2deg(torch.acos((w * b).sum() / w.norm() / b.norm()))
    np.testing.assert_allclose(analysis.weight_angle.sel(step=2, layer="layers.top"), angle, rtol=1e-5)
    assert "step_size_number" not in analysis
    assert "error_angle" not in analysis
    assert diagnose(tmp_path / "run", analysis)


def signals(net):
    """What a user would write: the errors under the rule and, with W in the place of B, under backprop."""
    x, y = torch.linspace(-1, 1, 40).reshape(10, 4), torch.arange(10) % 3
    found = {f"layers.{name}": {} for name in net.layers}
    for key in ("delta", "delta_exact"):
        saved = {name: layer.back.clone() for name, layer in net.layers.items()}
        handles = []
        for name, layer in net.layers.items():
            if key == "delta_exact":
                layer.back.copy_(layer.weight.detach())

            def keep(module, inputs, output, of=found[f"layers.{name}"]):
                of["inputs"] = inputs[0].detach()
                output.register_hook(lambda error: of.update({key: error}))  # noqa: B023  (called before key changes)

            handles.append(layer.register_forward_hook(keep))
        torch.autograd.grad(F.cross_entropy(net(x), y), net.layers["low"].weight)
        for handle in handles:
            handle.remove()
        for name, layer in net.layers.items():
            layer.back.copy_(saved[name])
    return found


def test_signals_of_other_code_are_measured_as_those_of_the_same_network_converted(net, tmp_path):
    with Recorder(net, tmp_path / "theirs", pairs="back", signals=signals) as recorder:
        train(net, recorder)
    ours = nn.Sequential(*(nn.Linear(*size, bias=False) for size in ((4, 5), (5, 6), (6, 3))))
    ours = transport_free(nn.Sequential(nn.ReLU(), ours[0], nn.ReLU(), ours[1], nn.ReLU(), ours[2]), "fa")
    with torch.no_grad():
        for mine, theirs in zip((1, 3, 5), ("low", "middle", "top"), strict=True):
            ours[mine].weight.copy_(net.layers[theirs].weight)
            ours[mine].feedback.copy_(net.layers[theirs].back)
    batch = torch.linspace(-1, 1, 40).reshape(10, 4), torch.arange(10) % 3
    with Recorder(ours, tmp_path / "ours", probe_batch=batch) as recorder:
        F.cross_entropy(ours(batch[0]), batch[1]).backward()
        recorder.snapshot(2)
    measured, expected = analyze(tmp_path / "theirs").sel(step=2), analyze(tmp_path / "ours", model=ours).sel(step=2)
    both = [name for name in measured.data_vars if name in expected and measured[name].dims == ("layer",)]
    expected_too = {"error_angle", "error_angle_local", "error_angle_inherited", "projection_angle"}
    assert expected_too | {"weight_gradient_angle"} <= set(both)
    for name in both:
        np.testing.assert_allclose(measured[name].values, expected[name].values, rtol=1e-4, atol=1e-3, err_msg=name)
    again = analyze(tmp_path / "theirs", signals=lambda step: signals(net)).sel(step=2)
    np.testing.assert_allclose(again.error_angle.values, measured.error_angle.values, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"pairs": None},
            "Net: has no converted layer; expected layers from transport_free, or pairs= that name W and B",
        ),
        ({"pairs": "bakc"}, "Net: has no layer with 'bakc'; expected layers from transport_free, or pairs="),
        ({"pairs": 3}, "pairs: expected an attribute's name, a mapping of layers or a function, got int"),
        ({"pairs": {"low": "layers.low.weight"}}, "low: expected a pair of W and B, got 'layers.low.weight'"),
        ({"pairs": {"low": ("layers.low.weigth", "scale")}}, "did you mean 'layers.low.weight'?"),
        (
            {"pairs": {"low": ("layers.low.weight", 7)}},
            "low: expected the name of a tensor or a function of the network",
        ),
        ({"pairs": {"low": ("layers.low.weight", lambda net: None)}}, "low: has no B; expected a pair of W and B"),
        (
            {"pairs": {"low": ("layers.low.weight", "layers.top.back")}},
            "low: W has shape (5, 4) and B (3, 6); expected",
        ),
        ({"pairs": {"low": ("layers.low.weight", lambda net: 1 / 0)}}, "low: its function failed (ZeroDivisionError"),
        ({"pairs": {"low": ("scale", "scale")}}, "low: W has shape (3,); expected 2 to 5 axes"),
        ({"pairs": {"low": ("layers.low.weight", lambda net: np.array([["a"]]))}}, "low: B cannot be read as a tensor"),
        ({"pairs": {"low": ("layers.low.weight", lambda net: np.full((5, 4), np.inf))}}, "low: B is not finite before"),
        ({"pairs": lambda net: {}}, "pairs: expected a function that returns pairs by layer"),
        ({"pairs": {"": ("layers.low.weight", "layers.low.back")}}, "pairs: expected names of layers, got ''"),
        (
            {"pairs": "back", "probe_batch": (torch.ones(2, 4), torch.ones(2))},
            "probe_batch: wtdiag cannot run the layers",
        ),
    ],
)
def test_pairs_that_are_not_there_are_refused_in_one_line(net, tmp_path, given, said):
    with pytest.raises(InputError) as caught:
        Recorder(net, tmp_path / "run", **given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda net: 3, "signals: expected a mapping of layers to arrays, got int"),
        (lambda net: {"low": {}}, "signals: layer: 'low' is not known"),
        (lambda net: {"layers.low": {"error": 1}}, "layers.low: signal: 'error' is not known"),
        (
            lambda net: {"layers.low": {"delta": np.ones((8, 4))}},
            "layers.low: signal delta has shape (8, 4); expected (ex",
        ),
        (lambda net: net.none, "signals: their function failed (AttributeError"),
    ],
)
def test_signals_that_cannot_be_kept_are_refused(net, tmp_path, returned, said):
    with Recorder(net, tmp_path / "run", pairs="back", signals=returned) as recorder:
        with pytest.raises(InputError) as caught:
            recorder.snapshot(0)
        assert said in str(caught.value)
    assert open_run(tmp_path / "run").steps.tolist() == []


def test_the_signals_of_each_step_are_its_own_where_only_their_middle_changes(net, tmp_path):
    # What repr shows of large arrays is the same at every step.
    now = torch.zeros(2000, 3)

    def large(model):
        now[1000] += 1
        return {"layers.top": {"delta": now.clone(), "delta_exact": 2 * now}}

    with Recorder(net, tmp_path / "run", pairs="back", signals=large) as recorder:
        train(net, recorder)
    for step in range(3):
        with open_snapshot(snapshot_path(tmp_path / "run", step)) as file:
            signals = read_signals(file, "layers.top")
            assert signals["delta"][1000].tolist() == [step + 1] * 3
            assert signals["delta_exact"].sum() == 6 * (step + 1)
            assert read_signals(file, "layers.low") == {}
        assert open_run(tmp_path / "run").layer("layers.top").feedback.shape == (3, 3, 6)


def test_a_network_of_other_code_is_not_rebuilt_and_its_recording_is_resumed(net, tmp_path):
    with Recorder(net, tmp_path / "run", pairs="back") as recorder:
        train(net, recorder)
    with pytest.raises(InputError, match="recorded from layers of other code, which wtdiag cannot rebuild"):
        open_run(tmp_path / "run").model(0)
    with pytest.raises(InputError, match="wtdiag cannot run the layers of other code; give signals="):
        analyze(tmp_path / "run", model=net)
    with Recorder.resume(net, tmp_path / "run", 1, pairs="back") as recorder:
        recorder.snapshot(5)
    assert open_run(tmp_path / "run").steps.tolist() == [0, 1, 5]


def linear_of(rule):
    """A layer that looks as BioTorch's do, for machines without it."""
    module = types.ModuleType("biotorch.layers.stand_in")

    class Linear(nn.Linear):
        def __init__(self, *sizes, type):  # noqa: A002  (BioTorch's own name)
            super().__init__(*sizes)
            self.type = type
            self.weight_backward = nn.Parameter(torch.rand_like(self.weight), requires_grad=False)

    Linear.__module__ = module.__name__
    return Linear(4, 3, type=rule)


@pytest.mark.parametrize(("rule", "signed"), [("fa", False), ("usf", True), ("brsf", True), ("frsf", True)])
def test_the_effective_feedback_of_biotorch_is_recorded_and_not_its_magnitudes(tmp_path, rule, signed):
    torch.manual_seed(0)
    layer = linear_of(rule)
    with Recorder(layer, tmp_path / "run") as recorder:
        recorder.snapshot(0)
    run = open_run(tmp_path / "run")
    kept = layer.weight_backward
    expected = kept * layer.weight.sign() if signed else kept
    np.testing.assert_array_equal(run.layer("model").feedback.values[0], expected.detach())
    assert run.config["rule"] == {"name": rule}
    assert analyze(run).sign_agreement.item() == (1.0 if signed else pytest.approx(0.5, abs=0.3))


@pytest.mark.filterwarnings("default")
def test_direct_feedback_of_biotorch_is_recorded_as_such(tmp_path):
    if not importlib.util.find_spec("biotorch"):
        pytest.skip("biotorch is not installed; `make install` adds it")
    from biotorch.module.biomodule import BioModule
    from biotorch.training.functions import train as train_epoch

    torch.manual_seed(0)
    # The linear layer before the last has as many units as the output: its B has W's shape although it starts there.
    convs = nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), dilation=2, bias=False)
    parts = *convs, nn.Tanh(), nn.Flatten(), nn.Linear(36, 10), nn.ReLU(), nn.Linear(10, 10)
    with contextlib.redirect_stdout(io.StringIO()):
        net = BioModule(nn.Sequential(*parts), mode="dfa", output_dim=10).double()
    x, y = torch.randn(16, 1, 8, 8).double(), torch.arange(16) % 10
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.05)
    sent = {}
    for name in ("2", "5"):
        layer = net.module.get_submodule(name)
        layer.register_forward_pre_hook(
            lambda _, inputs, name=name: inputs[0].register_hook(lambda error: sent.update({name: error})) and None
        )
    with Recorder(net, tmp_path / "run") as recorder, contextlib.redirect_stdout(io.StringIO()):
        recorder.snapshot(0)  # when the size of the maps is not known yet
        with pytest.raises(InputError, match=r"step: the size of the input of module.0, module.2 is not known before"):
            recorder.snapshot(1)
        first = net.module[2].weight.detach().clone()
        train_epoch(net, "dfa", nn.CrossEntropyLoss(), optimizer, [(x, y)], torch.device("cpu"), 0, False)
        recorder.snapshot(1)
        assert set(live_measures(net, recorder.reader)) == {"weight_angle/module.7", "norm_ratio/module.7"}
    run = open_run(tmp_path / "run")
    assert run.config["rule"] == {"name": "dfa"}
    np.testing.assert_array_equal(run.layer("module.2").forward.values[0], first)
    # What carried the errors: B of a convolution is a map for each class, and not the kernel that BioTorch keeps.
    error = net.module[2].loss_gradient.numpy()
    for name, dims, shape in (
        ("2", ("class", "in", "h", "w"), (10, 4, 6, 6)),
        ("5", ("class", "in"), (10, 36)),
    ):
        b = run.layer(f"module.{name}").feedback
        assert b.dims == ("step", *dims)
        assert b.shape == (2, *shape)
        for step in (0, 1):
            np.testing.assert_allclose(sent[name], np.tensordot(error, b.values[step], 1), rtol=1e-12, atol=1e-15)
    analysis = analyze(run)
    assert analysis.direct.values.tolist() == [True, True, True, False]
    assert np.isnan(analysis.weight_angle.values[0, :3]).all()  # W and B cannot be compared
    assert np.isfinite(analysis.weight_angle.values[0, 3])
    assert np.isfinite(analysis.feedback_stable_rank.values).all()


@pytest.mark.filterwarnings("default")
def test_direct_feedback_of_biotorch_is_not_written_before_its_size_is_known(tmp_path):
    if not importlib.util.find_spec("biotorch"):
        pytest.skip("biotorch is not installed; `make install` adds it")
    from biotorch.module.biomodule import BioModule

    parts = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding="same"), nn.Flatten(), nn.Linear(144, 10)
    with contextlib.redirect_stdout(io.StringIO()):
        net = BioModule(nn.Sequential(*parts), mode="dfa", output_dim=10)
    recorder = Recorder(net, tmp_path / "run")
    recorder.snapshot(0)
    with pytest.raises(
        InputError, match=r"module.0 is not known before the first batch; the snapshot .* is not written"
    ):
        recorder.close()
    assert not recorder.is_open
    assert open_run(tmp_path / "run").steps.tolist() == []
    with Recorder(net, tmp_path / "run", force=True) as recorder:
        recorder.snapshot(0)
        with torch.no_grad():
            net.module(torch.randn(2, 1, 8, 8))
    run = open_run(tmp_path / "run")
    assert run.layer("module.0").feedback.shape == (1, 10, 1, 8, 8)
    # BioTorch's own backward pass has no padding="same": its kernel is all that there is.
    np.testing.assert_array_equal(run.layer("module.1").feedback.values[0], net.module[1].weight_backward)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("rule", ["fa", "frsf"])
def test_a_network_of_biotorch_trained_by_its_own_loop_is_recorded_and_explained(tmp_path, rule):
    if not importlib.util.find_spec("biotorch"):
        pytest.skip("biotorch is not installed; `make install` adds it")
    from biotorch.module.biomodule import BioModule
    from biotorch.training.functions import train as train_epoch

    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 10))
    with contextlib.redirect_stdout(io.StringIO()):
        net = BioModule(inner, mode=rule)
    x, y = torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.05)
    with Recorder(net, tmp_path / "run") as recorder, contextlib.redirect_stdout(io.StringIO()):
        for epoch in range(3):
            accuracy, loss = train_epoch(
                net, rule, nn.CrossEntropyLoss(), optimizer, [(x, y)], torch.device("cpu"), epoch, False
            )
            recorder.snapshot(epoch, loss=loss, accuracy=accuracy / 100)
    analysis = analyze(tmp_path / "run")
    assert analysis.attrs["rule"] == rule
    assert analysis.carries_error.values.tolist() == [False, True, True]
    assert analysis.kind.values.tolist() == ["Conv2d", "Conv2d", "Linear"]
    # The effective matrix of frSF has W's signs; its magnitudes alone would lie near 90°.
    assert (analysis.weight_angle.isel(step=-1).values < 60).all() == (rule == "frsf")
    assert [finding.kind for finding in diagnose(tmp_path / "run", analysis)]
