"""A recorded network comes back exactly as it was, for every rule."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import write_json
from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.config.settings import Settings, with_rule
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.observe.attribution import attribution
from wtdiag.trainers.observe.open_run import attribution_of, open_run, signals_of
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.trainers.rules import RULES


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_the_last_snapshot_is_the_trained_network(rule, precision, tmp_path):
    settings = Settings(rule=rule, epochs=0.2, width=8, depth=3, snapshots=2, precision=precision)
    training = Training(settings, tmp_path / "run")
    for _ in training:
        pass
    run = open_run(tmp_path / "run")
    twin = run.model(int(run.steps[-1]))
    expected = training.model.state_dict()
    assert twin.state_dict().keys() == expected.keys()
    for key, value in twin.state_dict().items():
        if RULES[rule].tied and key.endswith("feedback"):
            assert torch.equal(value.sign(), twin.state_dict()[key.replace("feedback", "weight")].sign())
            assert torch.equal(value.abs(), expected[key].abs())
        else:
            assert torch.equal(value, expected[key]), key
    x, y = run.probe_batch()
    assert len(x) == len(y) == settings.probe_size
    assert x.dtype == (torch.float64 if precision == "float64" else torch.float32)


def test_a_network_of_ones_own_is_given_back(tmp_path):
    torch.manual_seed(0)
    net = transport_free(nn.Linear(4, 3), "kp")
    with Recorder(net, tmp_path / "run") as recorder:
        recorder.snapshot(0)
    run = open_run(tmp_path / "run")
    with pytest.raises(InputError, match="give the converted network as model="):
        run.model(0)
    torch.manual_seed(1)
    twin = run.model(0, transport_free(nn.Linear(4, 3), "kp"))
    assert torch.equal(twin.weight, net.weight)
    assert torch.equal(twin.feedback, net.feedback)
    with pytest.raises(InputError, match="does not fit the network"):
        run.model(0, transport_free(nn.Linear(4, 3, bias=False), "kp"))
    with pytest.raises(InputError, match=r"'weight' is \(3, 4\), not \(3, 5\)"):
        run.model(0, transport_free(nn.Linear(5, 3), "kp"))
    with pytest.raises(InputError, match="there is no snapshot of step 7"):
        run.model(7, net)


@pytest.mark.parametrize(
    ("rule", "other", "message"),
    [
        (
            "fa",
            "bp",
            "layer '0' learned by 'fa' in the run, but learns by 'bp' in the network; expected a network converted by",
        ),
        ("bp", "kp", "layer '0' learned by 'bp' in the run, but learns by 'kp'"),
        ("fa", "usf", "layer '0' learned by 'fa' in the run, but learns by 'usf'"),
    ],
)
def test_a_network_of_another_rule(rule, other, message, tmp_path):
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    own_run(tmp_path / "run", torch.arange(10) % 3, transport_free(net, rule))
    foreign = transport_free(net, other)
    before = {key: value.clone() for key, value in foreign.state_dict().items()}
    run = open_run(tmp_path / "run")
    for use in (lambda: run.model(0, foreign), lambda: signals_of(run, foreign)(0)):
        with pytest.raises(InputError, match=rf"step-00000000\.nc: {message}"):
            use()
    assert all(torch.equal(value, before[key]) for key, value in foreign.state_dict().items())


def test_a_network_of_several_rules(tmp_path):
    parts = [nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)]
    fa, kp = (transport_free(nn.Sequential(*parts), rule) for rule in ("fa", "kp"))
    mixed = nn.Sequential(fa[0], nn.Tanh(), kp[2])
    own_run(tmp_path / "run", torch.arange(10) % 3, mixed)
    run = open_run(tmp_path / "run")
    assert run.config["rule"]["name"] == "mixed"
    assert run.model(0, copy.deepcopy(mixed))
    with pytest.raises(InputError, match="layer '2' learned by 'kp' in the run, but learns by 'fa'"):
        run.model(0, fa)


@pytest.mark.parametrize(
    "rule", [None, "fa", ["fa"], {}, {"name": 3}, {"name": "mixed"}, {"name": "mixed", "layers": {"0": "fa", "2": []}}]
)
def test_a_config_that_names_no_rule(rule, tmp_path):
    """Then the snapshot still tells backprop from the rest."""
    net, _ = own_run(tmp_path / "run", torch.arange(10) % 3)
    plain = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    write_json(tmp_path / "run" / "config.json", {"network": None, "rule": rule})
    run = open_run(tmp_path / "run")
    assert torch.equal(run.model(0, transport_free(plain, "fa"))[0].feedback, net[0].feedback)
    with pytest.raises(InputError, match="layer '0': feedback weights: the snapshot holds its own, 'bp' has none; exp"):
        run.model(0, transport_free(plain, "bp"))
    own_run(tmp_path / "bp", torch.arange(10) % 3, transport_free(plain, "bp"))
    write_json(tmp_path / "bp" / "config.json", {"network": None, "rule": rule})
    with pytest.raises(InputError, match="layer '0': feedback weights: the snapshot holds none, 'fa' has its own; exp"):
        open_run(tmp_path / "bp").model(0, transport_free(plain, "fa"))


@pytest.mark.parametrize("step", ["1", 0.5, None, float("nan"), float("inf"), [0, 1]])
def test_a_step_that_is_no_number(step, tmp_path):
    net, _ = own_run(tmp_path / "run", torch.arange(10) % 3)
    with pytest.raises(InputError, match="step: expected a whole number, got "):
        open_run(tmp_path / "run").model(step, net)


def own_run(path, targets, net=None):
    """Record a net of one's own with a probe batch of ten examples."""
    torch.manual_seed(0)
    net = net or transport_free(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), "fa")
    batch = torch.randn(10, 4), targets
    with Recorder(net, path, probe_batch=batch) as recorder:
        recorder.snapshot(0)
    return net, batch


def test_signals_of_the_loss_that_was_trained(tmp_path):
    net, (x, y) = own_run(tmp_path / "run", torch.randn(10, 3))
    run = open_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"loss: .*probe_batch.nc has float32 targets.*loss=torch.nn.functional.mse"):
        signals_of(run, net)
    found = signals_of(run, net, F.mse_loss)(0)
    for layer, arrays in error_signals(net, x, y, loss=F.mse_loss).items():
        assert set(found[layer]) == {*arrays, "forward_lr", "forward_decay"}
        for name, array in arrays.items():
            if isinstance(array, np.ndarray):
                np.testing.assert_array_equal(found[layer][name], array)
    costs = attribution_of(run, net, F.mse_loss)(0)
    assert costs == attribution(net, x, y, loss=F.mse_loss)
    assert costs["2"] != (0.0, 0.0)


def test_signals_of_classes_need_no_loss(tmp_path):
    net, (x, y) = own_run(tmp_path / "run", torch.arange(10) % 3)
    found = signals_of(open_run(tmp_path / "run"), net)(0)
    np.testing.assert_array_equal(found["0"]["delta"], error_signals(net, x, y)["0"]["delta"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_signals_where_the_model_lies(tmp_path):
    net, _ = own_run(tmp_path / "run", torch.arange(10) % 3)
    run = open_run(tmp_path / "run")
    here, there = signals_of(run, net)(0), signals_of(run, net.cuda())(0)
    np.testing.assert_allclose(there["0"]["delta"], here["0"]["delta"], rtol=1e-3, atol=1e-5)


def test_a_run_without_snapshots_has_no_signals(tmp_path):
    net = transport_free(nn.Linear(4, 3), "fa")
    Recorder(net, tmp_path / "run", probe_batch=(torch.ones(2, 4), torch.zeros(2, dtype=torch.long))).close()
    assert signals_of(open_run(tmp_path / "run"), net) is None
    assert attribution_of(open_run(tmp_path / "run"), net) is None


X, Y = np.ones((10, 4), np.float32), np.arange(10) % 3
BATCHES = {
    "another shape": (X[:, :3], Y),
    "another dtype": (X.astype(int), Y),
    "class of none": (X, np.full(10, 99)),
    "unequal lengths": (X, Y[:9]),
    "nothing": (X[:0], Y[:0]),
    "scalars": (np.array(1.0), np.array(1)),
    "texts": (X, np.array(["a"] * 10)),
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_that_does_not_fit(batch, tmp_path):
    net, _ = own_run(tmp_path / "run", torch.arange(10) % 3)
    path = tmp_path / "run" / "probe_batch.nc"
    path.unlink()
    names = ("inputs", "targets")
    arrays = {k: ([f"{k}{axis}" for axis in range(v.ndim)], v) for k, v in zip(names, batch, strict=True)}
    xr.Dataset(arrays).to_netcdf(path, engine="h5netcdf")
    for measure in (signals_of, attribution_of):
        with pytest.raises(InputError, match=r"probe_batch.nc: ") as caught:
            measure(open_run(tmp_path / "run"), net)(0)
        assert "\n" not in str(caught.value)


def test_a_batch_that_is_a_bomb(tmp_path):
    net, _ = own_run(tmp_path / "run", torch.arange(10) % 3)
    path = tmp_path / "run" / "probe_batch.nc"
    path.unlink()
    batch = xr.Dataset(
        {"inputs": (("batch", "x"), np.zeros((2**10, 2**12))), "targets": ("batch", np.zeros(2**10, int))}
    )
    batch.to_netcdf(path, engine="h5netcdf", encoding={"inputs": {"zlib": True, "complevel": 9}})
    with pytest.raises(InputError, match=r"probe_batch.nc: .*inputs: is chunked, compressed"):
        signals_of(open_run(tmp_path / "run"), net)


SETTINGS = Settings(depth=2, width=8)
NETWORK = {"shape": [1, 8, 8], "classes": 10}


@pytest.mark.parametrize(
    "network",
    [
        5, [], "", {}, {"shape": [1, 8, 8]}, {**NETWORK, "classes": "x"}, {**NETWORK, "shape": 5},
        {**NETWORK, "shape": [8, 8]}, {**NETWORK, "shape": [1, 8, -8]}, {**NETWORK, "classes": 0},
    ],
)  # fmt: skip
def test_a_network_that_is_none(network, tmp_path):
    own_run(tmp_path / "run", torch.arange(10) % 3)
    write_json(tmp_path / "run" / "config.json", {"network": network, "settings": SETTINGS.as_dict()})
    with pytest.raises(InputError, match=r"config.json: 'network' is .*; expected a shape of three positive numbers"):
        open_run(tmp_path / "run").model(0)


@pytest.mark.parametrize("settings", [None, [], 5, "x" * 1000])
def test_settings_that_are_none(settings, tmp_path):
    net, _ = own_run(tmp_path / "run", torch.arange(10) % 3)
    write_json(tmp_path / "run" / "config.json", {"network": NETWORK, "settings": settings})
    run = open_run(tmp_path / "run")
    for use in (lambda: run.model(0), lambda: signals_of(run), lambda: signals_of(run, net)):
        with pytest.raises(InputError, match=r"config.json: 'settings' is .*; expected a JSON object") as caught:
            use()
        assert len(str(caught.value)) < 300
    write_json(tmp_path / "run" / "config.json", {"network": None, "settings": settings})
    assert signals_of(open_run(tmp_path / "run"), net)(0)


@pytest.mark.parametrize("change", [{"width": 10**9}, {"width": 10**30}, {"seed": 10**30}])
def test_recorded_settings_out_of_bounds(change, tmp_path):
    own_run(tmp_path / "run", torch.arange(10) % 3)
    write_json(tmp_path / "run" / "config.json", {"network": NETWORK, "settings": SETTINGS.as_dict() | change})
    (name, value), = change.items()  # fmt: skip
    with pytest.raises(InputError, match=rf"config\.json: .*({name}: expected a number ≤ \d+, got {value}|digits)"):
        open_run(tmp_path / "run").model(0)


def test_a_network_out_of_reach(tmp_path):
    settings = dataclasses.replace(SETTINGS, depth=3, width=2**20)
    with pytest.raises(InputError, match=r"model: 'mlp' cannot be built with .*depth=3, width=1048576") as caught:
        build_network(settings, shape=(1, 8, 8), classes=10)
    assert "\n" not in str(caught.value)
    own_run(tmp_path / "run", torch.arange(10) % 3)
    write_json(tmp_path / "run" / "config.json", {"network": NETWORK, "settings": settings.as_dict()})
    with pytest.raises(InputError, match="cannot be built"):
        open_run(tmp_path / "run").model(0)


@pytest.mark.parametrize("rule", RULES)
def test_building_leaves_every_random_state(rule, monkeypatch):
    """On a GPU too, whether it is in use by now or not."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    first, second = (build_network(Settings(rule=rule), shape=(1, 8, 8), classes=10) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_attribution_takes_the_step_of_the_run(tmp_path):
    settings = Settings(epochs=2, depth=2, width=8, snapshots=4, momentum=0.5)
    for _ in Training(settings, tmp_path / "run"):
        pass
    run = open_run(tmp_path / "run")
    step = int(run.steps[1])
    found = attribution_of(run)(step)
    lr = signals_of(run)(step)["fc1"]["forward_lr"]
    assert found == attribution(run.model(step), *run.probe_batch(), lr=lr)
    assert found != attribution(run.model(step), *run.probe_batch(), lr=lr / 2)


@pytest.mark.parametrize(("rule", "given", "kept"), [
    ("ldfa", {}, {"rank": 3, "decay": 0.5}), ("ldfa", {"decay": "linear:0.5:0"}, {"rank": 3, "decay": "linear:0.5:0"}),
    ("fa", {}, {}), ("nothing", {}, {}),
])  # fmt: skip
def test_a_run_keeps_the_coefficients_that_it_had_by_default(rule, given, kept):
    recorded = {"name": "ldfa", "scale": 1.0, "rank": 3, "oja": 1.0, "decay": 0.5, "unknown": 1}
    settings = {"rule": rule, "coefficients": given}
    assert with_rule(settings, recorded)["coefficients"] == kept
    assert with_rule(settings, None) == settings
