"""Networks whose state is not plain tensors alone: pruned, parametrized, sparse, expanded, with texts."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import feedback_parameters, summary, transport_free
from wtdiag.trainers.observe.attribution import attribution
from wtdiag.trainers.observe.open_run import attribution_of, open_run, signals_of
from wtdiag.trainers.observe.tensors import from_numpy, to_numpy
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.trainers.record.staging import Staging

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)), torch.arange(6) % 3


def converted(rule="fa", dtype=torch.float32):
    torch.manual_seed(0)
    return transport_free(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype), rule)


def train(model, steps=1, x=X):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), Y).backward()
        optimizer.step()


COMPUTED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.4),
    "pruned twice": lambda layer: [prune.random_unstructured(layer, "weight", 0.2) for _ in range(2)],
    "pruned bias": lambda layer: prune.l1_unstructured(layer, "bias", 0.4),
    "pruned feedback": lambda layer: prune.l1_unstructured(layer, "feedback", 0.4),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight norm": nn.utils.weight_norm,
    "old spectral norm": nn.utils.spectral_norm,
}


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        *((how, "bp") for how in COMPUTED if how != "pruned feedback"),
        *zip(COMPUTED, ["usf", "dfa", "fa", "kp"] * 3, strict=False),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.(weight|spectral)_norm` is deprecated")
@pytest.mark.filterwarnings("ignore:kp.* an optimiser.s step moves W and B differently")  # where one alone is computed
def test_weights_computed_from_others_after_conversion(how, rule, tmp_path):
    model = converted(rule)
    recorder = Recorder(model, tmp_path / "run", probe_batch=(X, Y))
    recorder.snapshot(0)
    COMPUTED[how](model[2])
    model.to(torch.float32).load_state_dict(model.state_dict())
    train(model, 2)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    recorder.snapshot(1)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    expected = copy_of(model).eval()
    expected(X)  # computes the weights anew
    recorder.close()

    run = open_run(tmp_path / "run")
    layer = run.snapshot(1)["2"]
    np.testing.assert_array_equal(layer["forward"], expected[2].weight.detach())
    assert layer.attrs["kind"] == "Linear"
    assert [kind for _, kind, _ in summary(model).converted] == ["Linear", "Linear"]
    feedback = expected[2].weight if rule == "bp" else expected[2].feedback
    if rule == "usf":
        feedback = feedback.copysign(expected[2].weight)
    np.testing.assert_array_equal(layer["feedback"], feedback.detach())
    twin = run.model(1, copy_of(model))
    assert torch.equal(twin.eval()(X), expected(X))
    signals = signals_of(run, model)(1)
    np.testing.assert_allclose(signals["2"]["forward_projection"], X_projected(expected), rtol=0.01)  # norms iterate on
    assert attribution_of(run, model)(1)


def copy_of(model):
    memo = {id(v): v.detach().clone() for m in model.modules() for v in vars(m).values() if isinstance(v, torch.Tensor)}
    return copy.deepcopy(model, memo)


def X_projected(model):
    return model[2](model[1](model[0](X))).detach() - model[2].bias.detach()


@pytest.mark.parametrize("how", ["pruned", "weight norm", "orthogonal"])
def test_costs_of_computed_weights_are_those_of_their_originals(how):
    model = converted("fa", torch.float64)
    COMPUTED[how](model[2])
    x = X.double()
    lr = 1e-3
    signals, costs = error_signals(model, x, Y), attribution(model, x, Y, lr=lr)
    trained = [p for name, p in model.named_parameters() if name not in feedback_parameters(model)]
    value = F.cross_entropy(model(x), Y)
    ruled = torch.autograd.grad(value, trained)
    exact_value, exact = gradients_with_w_for_b(model, x, trained)
    np.testing.assert_allclose(signals["0"]["weight_gradient"], ruled[0], rtol=1e-9)

    def decrease(gradient):
        moved = copy_of(model)
        with torch.no_grad():
            names = [name for name, _ in model.named_parameters() if name not in feedback_parameters(model)]
            own = dict(moved.named_parameters())
            for name, step in zip(names, gradient, strict=True):
                own[name] -= lr * step
            return (exact_value - F.cross_entropy(moved(x), Y)).item()

    assert sum(cost.loss for cost in costs.values()) == pytest.approx(1 - decrease(ruled) / decrease(exact), rel=1e-6)


def gradients_with_w_for_b(model, x, trained):
    model(x)  # computes what pruned weights are
    h = torch.tanh(F.linear(x, model[0].weight, model[0].bias))
    value = F.cross_entropy(F.linear(h, model[2].weight, model[2].bias), Y)
    return value.detach(), torch.autograd.grad(value, trained)


class Stateful(nn.Module):
    """A network with a buffer, a text and an extra state that no snapshot can hold."""

    def __init__(self, buffer, extra=None):
        super().__init__()
        self.body, self.extra = nn.Linear(4, 3), extra
        self.register_buffer("buffer", buffer)

    def forward(self, x):
        return self.body(x)

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def quantized():
    with warnings.catch_warnings(action="ignore"):  # deprecated, which is said once in a process
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


LEFT_OUT = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": quantized,
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
@pytest.mark.filterwarnings(
    "ignore:Sparse (CSR|invariant)", "ignore:The PyTorch API of nested", "ignore:torch.quantize_per_tensor"
)
def test_state_that_snapshots_cannot_hold_is_named_and_kept_by_the_network(kind, tmp_path):
    torch.manual_seed(0)
    model = transport_free(Stateful(LEFT_OUT[kind](), extra={"version": "text"}), "kp")
    with pytest.warns(UserWarning, match=r"^recorder: buffer, _extra_state: state other than dense tensors is not rec"):
        recorder = Recorder(model, tmp_path / "run", probe_batch=(X, Y))
    with recorder:
        recorder.snapshot(0)
        assert recorder.stage(1)
    run = open_run(tmp_path / "run")
    assert signals_of(run, model)(0).keys() == {"body"}
    twin = run.model(0, transport_free(Stateful(LEFT_OUT[kind](), extra={"version": "text"}), "kp"))
    assert torch.equal(twin.body.weight, model.body.weight)
    assert twin.extra == {"version": "text"}


def test_expanded_buffers_come_back(tmp_path):
    torch.manual_seed(0)
    model = transport_free(Stateful(torch.ones(1, 3).expand(5, 3), extra=torch.ones(2)), "kp")
    with Recorder(model, tmp_path / "run", probe_batch=(X, Y)) as recorder:
        recorder.snapshot(0)
    run = open_run(tmp_path / "run")
    assert signals_of(run, model)(0)
    assert not model.buffer.stride()[0]
    assert torch.equal(run.model(0, model).buffer, torch.ones(5, 3))


def test_signals_leave_buffers_that_a_forward_pass_makes_anew():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 3)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return self.body(x)

    model = transport_free(Counting(), "fa")
    error_signals(model, X, Y)
    attribution(model, X, Y)
    assert model.count == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e5m2, torch.float16, torch.float32, torch.float64])
def test_a_probe_batch_keeps_its_dtype(dtype, tmp_path):
    batch = X.to(dtype), Y
    with Recorder(converted(), tmp_path / "run", probe_batch=batch):
        pass
    inputs, targets = open_run(tmp_path / "run").probe_batch()
    assert (inputs.dtype, targets.dtype) == (dtype, torch.int64)
    assert torch.equal(inputs.float(), batch[0].float())


def test_a_network_in_bfloat16_is_measured_on_its_own_batch(tmp_path):
    model = converted(dtype=torch.bfloat16)
    with Recorder(model, tmp_path / "run", probe_batch=(X.bfloat16(), Y)) as recorder:
        recorder.snapshot(0)
    assert signals_of(open_run(tmp_path / "run"), model)(0)["2"]["inputs"].dtype == np.float32


def test_complex_numbers_of_half_precision_keep_both_parts():
    with pytest.warns(UserWarning, match="ComplexHalf"):
        tensor = torch.tensor([1 + 2j], dtype=torch.complex32)
    assert from_numpy(*to_numpy(tensor)).to(torch.complex64) == 1 + 2j


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X[:0], Y[:0]), r"the same number of examples, at least one, got shapes \(0, 4\) and \(0,\)"),
        ((X[:, :0], Y), r"the same number of examples, at least one, got shapes \(6, 0\)"),
        ((X.to_sparse(), Y), r"expected dense tensors of numbers, got float32 in torch.sparse_coo layout, int64 in"),
    ],
)
def test_a_probe_batch_that_cannot_be_used_is_refused_at_once(batch, message, tmp_path):
    with pytest.raises(InputError, match=f"^probe_batch: .*{message}"):
        Recorder(converted(), tmp_path / "run", probe_batch=batch)
    assert not (tmp_path / "run").exists()


def test_a_network_without_values_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^0\.weight: has no values on the meta device"):
        Recorder(converted().to("meta"), tmp_path / "run")


class Outputs(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.body, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x):
        return self.wrap(self.body(x))


def fail(error):
    def raising(*_):
        raise error

    return raising


@pytest.mark.parametrize(
    ("wrap", "loss", "message"),
    [
        (lambda y: (y, y), None, "tuple"),
        (lambda y: {"scores": y}, None, "dict"),
        (lambda y: y, fail(AttributeError("no such thing")), "no such thing"),
        (lambda y: y, fail(KeyError("logits")), "'logits'"),
        (lambda y: y, fail(AssertionError()), "AssertionError"),
        (lambda y: y, lambda y, target: 0.5, "float"),
        (lambda y: y, lambda y, target: None, "NoneType"),
    ],
)
def test_outputs_and_losses_that_do_not_fit_are_one_line(wrap, loss, message, tmp_path):
    model = transport_free(Outputs(wrap), "fa")
    with Recorder(model, tmp_path / "run", probe_batch=(X, Y)) as recorder:
        recorder.snapshot(0)
    for measure in (signals_of, attribution_of):
        with pytest.raises(InputError, match=r"probe_batch\.nc: the network cannot take the batch, or the loss") as got:
            measure(open_run(tmp_path / "run"), model, loss)(0)
        assert message in str(got.value)
        assert "\n" not in str(got.value)


@pytest.mark.parametrize("model", [5, "net", nn.Linear])
def test_what_is_not_a_network(model, tmp_path):
    with Recorder(converted(), tmp_path / "run", probe_batch=(X, Y)) as recorder:
        recorder.snapshot(0)
    run = open_run(tmp_path / "run")
    for use in (lambda: run.model(0, model), lambda: signals_of(run, model)):
        with pytest.raises(InputError, match=r"^model: expected a converted network, got "):
            use()


def test_a_default_device_changes_nothing():
    """As `torch.set_default_device` does for a whole program; meta stands for any device that is not the CPU."""
    model, x = converted("wm"), X
    expected = error_signals(model, x, Y)["2"]["law"].gradient(np.ones((3, 5), np.float32))
    with torch.device("meta"):
        staging = Staging()
        staging.fill(0, model)
        assert staging.snapshot().layers["2"].forward.any()
        law = error_signals(model, x, Y)["2"]["law"]
        np.testing.assert_array_equal(law.gradient(np.ones((3, 5), np.float32)), expected)
        assert np.isfinite(law.noise(np.ones((3, 5), np.float32), 2)).all()
        assert attribution(model, x, Y)
