import copy
import json
import threading

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import wtdiag.trainers.record.writer
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run, open_snapshot, read_layer, snapshot_path
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.trainers.record.staging import snapshot_bytes
from wtdiag.trainers.rules import RULES
from wtdiag.trainers.rules.direct import Direct


def small_net():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 3),
        nn.Flatten(),
        nn.Linear(108, 5),
    )


def converted(rule="fa", dtype=torch.float32, **coefficients):
    torch.manual_seed(0)
    sample = torch.randn(2, 2, 8, 8, dtype=dtype)
    return transport_free(small_net().to(dtype), rule, sample=sample, **coefficients)


def train(model, steps=1):
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        x, y = torch.randn(6, 2, 8, 8, dtype=dtype), torch.randint(5, (6,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def files(path):
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def rebuilt(path, step, model):
    """Load a snapshot into a copy of ``model`` by nothing but names."""
    tree, state = open_run(path).snapshot(step), open_run(path).state(step)
    own = model.state_dict()
    arrays = dict(state)
    for name, layer in tree.children.items():
        arrays[f"{name}.weight"], feedback = layer["forward"].values, layer["feedback"].values
        if f"{name}.feedback_right" not in state:  # the factors of a product are in the state
            arrays[f"{name}.feedback"] = feedback
    assert arrays.keys() == own.keys()
    twin = copy.deepcopy(model)
    twin.load_state_dict({key: torch.from_numpy(array).to(own[key].dtype) for key, array in arrays.items()})
    return twin


def bits(model):
    return {key: tensor.contiguous().numpy().tobytes() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("rule", RULES)
def test_a_snapshot_is_the_model_when_it_was_asked_for(rule, tmp_path):
    model = converted(rule)
    with Recorder(model, tmp_path / "run") as recorder:
        train(model, 2)
        used = {name: layer.feedback.clone() for name, layer in synapses(model)}
        expected = copy.deepcopy(model)
        recorder.snapshot(2)
        train(model, 3)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.fill_(7)
    tree = open_run(tmp_path / "run").snapshot(2)
    assert list(tree.children) == ["0", "3", "5"]
    for name, layer in synapses(expected):
        node = tree[name]
        np.testing.assert_array_equal(node["forward"], layer.weight.detach())
        if rule == "brsf":  # fresh magnitudes are drawn with the next batch; the signs are today's
            np.testing.assert_array_equal(node["feedback"], used[name].copysign(layer.weight.detach()))
        else:
            layer.refresh()
            np.testing.assert_array_equal(node["feedback"], layer.feedback.detach())
    state = open_run(tmp_path / "run").state(2)
    assert state.keys() == {
        key
        for key in expected.state_dict()
        if not key.startswith(("0", "3", "5")) or key.endswith(("bias", "left", "right"))
    }
    for key, array in state.items():
        np.testing.assert_array_equal(array, expected.state_dict()[key])


@pytest.mark.parametrize("rule", RULES)
def test_recording_leaves_the_model_and_the_random_state_alone(rule, tmp_path):
    model = converted(rule)
    train(model)
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    before, gradients = (
        bits(model),
        {key: None if t.grad is None else t.grad.clone() for key, t in tensors.items()},
    )
    versions = {key: tensor._version for key, tensor in tensors.items()}
    random, training = torch.get_rng_state(), [module.training for module in model.modules()]
    with Recorder(model, tmp_path / "run") as recorder:
        recorder.snapshot(1)
        recorder.stage(2)
        recorder.keep()
    after = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    assert all(after[key] is tensor for key, tensor in tensors.items())
    assert bits(model) == before
    assert {key: tensor._version for key, tensor in after.items()} == versions
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == training
    for key, gradient in gradients.items():
        assert (after[key].grad is None) == (gradient is None)
        assert gradient is None or torch.equal(after[key].grad, gradient)


@pytest.mark.parametrize("rule", RULES)
def test_weights_and_state_rebuild_the_model_bitwise(rule, tmp_path):
    model = converted(rule, torch.float64)
    train(model)
    with Recorder(model, tmp_path / "run") as recorder:
        recorder.snapshot(1)
    twin = rebuilt(tmp_path / "run", 1, model)
    for (_, layer), (_, other) in zip(synapses(model), synapses(twin), strict=True):
        if RULES[rule].tied:  # recorded is the effective B
            layer.feedback.data.copysign_(layer.weight.data)
        assert layer.feedback.equal(other.feedback)
    assert bits(twin) == bits(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_dtype_is_kept_losslessly(dtype, tmp_path):
    model = transport_free(nn.Sequential(nn.Linear(9, 4)), "fa").to(dtype)
    extra = {
        "mask": torch.tensor([[True, False], [False, True]]),
        "count": torch.tensor(2**40 + 1),
        "scale": torch.tensor(1.0 / 3.0, dtype=torch.bfloat16),
        "phase": torch.tensor([1.0 + 2.0j, -3.0j]),
        "empty": torch.zeros(0, 3),
        "minus": torch.tensor([-float("inf"), float("nan"), -0.0]),
    }
    for name, tensor in extra.items():
        model.register_buffer(name, tensor)
    with Recorder(model, tmp_path / "run") as recorder:
        recorder.snapshot(0)
    with open_snapshot(snapshot_path(tmp_path / "run", 0)) as file:
        assert read_layer(file, "0").dtype == ("bfloat16" if dtype == torch.bfloat16 else "")
    own = model.state_dict()
    state = open_run(tmp_path / "run").state(0)
    assert state.keys() == own.keys() - {"0.weight", "0.feedback"}
    for name, array in state.items():
        tensor = torch.from_numpy(array).to(own[name].dtype)
        assert tensor.shape == own[name].shape
        # As bytes, so that NaN equals NaN and −0 differs from 0.
        assert tensor.flatten().view(torch.uint8).equal(own[name].flatten().view(torch.uint8))
    tree = open_run(tmp_path / "run").snapshot(0)
    assert torch.from_numpy(tree["0"]["forward"].values).to(dtype).equal(model[0].weight)


def test_layers_are_described(tmp_path):
    model = converted("fa")
    train(model)
    with Recorder(model, tmp_path / "run") as recorder:
        recorder.snapshot(0)
    tree = open_run(tmp_path / "run").snapshot(0)
    assert tree["0"].attrs["kind"] == "Conv2d"
    assert tree["0"].attrs["groups"] == 2
    assert list(tree["0"].attrs["stride"]) == [2, 2]
    assert [bool(tree[name].attrs["carries_error"]) for name in ("0", "3", "5")] == [False, True, True]
    assert [int(tree[name].attrs["index"]) for name in ("0", "3", "5")] == [0, 1, 2]
    assert tree["3"]["forward"].dims == ("in", "out", "kh", "kw")


@pytest.mark.parametrize("rule", RULES)
def test_feedback_is_fixed_only_where_it_never_changes(rule, tmp_path):
    model = converted("sum", amp=0.1) if rule == "sum" else converted(rule)
    with Recorder(model, tmp_path / "run") as recorder:
        for step in range(3):
            recorder.snapshot(step)
            train(model, 5)
    layer = open_run(tmp_path / "run").layer("5")
    assert bool(layer.attrs["fixed"]) == bool((layer.feedback == layer.feedback[0]).all())


@pytest.mark.parametrize("rule", [name for name in RULES if issubclass(RULES[name], Direct)])
def test_direct_feedback_has_the_dims_of_what_it_projects(rule, tmp_path):
    with Recorder(converted(rule), tmp_path / "run") as recorder:
        recorder.snapshot(0)
    tree = open_run(tmp_path / "run").snapshot(0)
    assert tree["3"]["feedback"].dims == ("class", "in", "h", "w")
    assert tree["5"]["feedback"].dims == ("out", "in")


def test_direct_feedback_of_unknown_size_is_refused_before_anything_is_made(tmp_path):
    model = transport_free(small_net(), "dfa")
    with pytest.raises(InputError, match="0: its feedback has no size before the first batch; run one, or"):
        Recorder(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_bare_layer_is_called_model(tmp_path):
    model = transport_free(nn.Linear(3, 2), "kp")
    with Recorder(model, tmp_path / "run") as recorder:
        recorder.snapshot(0)
    run = open_run(tmp_path / "run")
    np.testing.assert_array_equal(run.layer("model").feedback[0], model.feedback.detach())
    assert list(run.state(0)) == ["bias"]


@pytest.fixture
def process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled_within(model):
    model[5] = torch.compile(model[5])
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        nn.parallel.DistributedDataParallel,
        torch.compile,
        lambda model: torch.compile(nn.parallel.DistributedDataParallel(model)),
        compiled_within,
    ],
)
def test_wrapped_models_record_under_their_own_names(wrap, process_group, tmp_path):
    model = converted("kp")
    with Recorder(model, tmp_path / "plain") as recorder:
        recorder.snapshot(0)
    with Recorder(wrap(model), tmp_path / "wrapped") as recorder:
        recorder.snapshot(0)
    assert files(tmp_path / "plain") == files(tmp_path / "wrapped")


def test_other_ranks_record_nothing(process_group, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    with Recorder(converted(), tmp_path / "run", config={"settings": {}}) as recorder:
        recorder.snapshot(0, loss=1.0)
        recorder.log(1, loss=1.0)
        recorder.stage(1)
        recorder.keep()
        recorder.flush()
    Recorder.resume(converted(), tmp_path / "run", 0).close()
    assert not (tmp_path / "run").exists()


def test_the_training_thread_waits_when_two_copies_are_being_written(monkeypatch, tmp_path):
    model = transport_free(nn.Linear(3, 2), "fa")
    gate, order = threading.Semaphore(0), []
    write = wtdiag.trainers.record.writer.write_snapshot

    def slow(path, snapshot, form=None):
        assert gate.acquire(timeout=20)
        order.append(snapshot.step)
        write(path, snapshot, form)

    monkeypatch.setattr(wtdiag.trainers.record.writer, "write_snapshot", slow)
    recorder = Recorder(model, tmp_path / "run")
    done = []

    def loop():
        for step in range(5):
            with torch.no_grad():
                model.weight.fill_(step)
            recorder.snapshot(step)
            done.append(step)

    thread = threading.Thread(target=loop)
    thread.start()
    for written in range(4):
        expected = list(range(min(5, written + 2)))
        for _ in range(400):
            if done == expected:
                break
            threading.Event().wait(0.01)
        thread.join(0.05)
        assert done == expected  # two are in memory, and the loop stands still
        gate.release()
    gate.release()
    thread.join(20)
    recorder.close()
    assert order == [0, 1, 2, 3, 4]
    run = open_run(tmp_path / "run")
    np.testing.assert_array_equal(run.layer("model").forward.mean(("out", "in")), run.steps)


@pytest.mark.parametrize("rule", ["fa", "brsf", "dfa"])
def test_the_same_training_gives_the_same_bytes(rule, tmp_path):
    for name in ("a", "b"):
        model = converted(rule)
        batch = torch.randn(3, 2, 8, 8), torch.tensor([0, 1, 2])
        with Recorder(model, tmp_path / name, probe_batch=batch) as recorder:
            for step in range(3):
                recorder.snapshot(step, loss=1.0 / (1 + step))
                train(model)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_metrics_are_the_values_given(tmp_path):
    with Recorder(converted(), tmp_path / "run") as recorder:
        recorder.log(0, loss=torch.tensor(0.5), accuracy=np.float64(0.25), event="naïve \n line", lr=None)
        recorder.snapshot(np.int64(1), loss=float("nan"), epoch=1)
    table = open_run(tmp_path / "run").metrics
    assert table.step.tolist() == [0, 1]
    assert table.loss.tolist()[0] == 0.5
    assert np.isnan(table.loss[1])
    assert table.event[0] == "naïve \n line"


def test_config_tells_the_rule_of_every_layer(tmp_path):
    model = transport_free(small_net(), "ia", amp=0.5)
    with Recorder(model, tmp_path / "run", config={"settings": {"lr": 0.1}}) as recorder:
        assert json.loads((tmp_path / "run" / "config.json").read_text())["status"] == "running"
        recorder.snapshot(0)
    config = open_run(tmp_path / "run").config
    assert config["status"] == "finished"
    assert config["settings"] == {"lr": 0.1}
    assert config["network"] is None
    assert config["rule"]["name"] == "ia"
    assert config["rule"]["amp"] == 0.5
    assert config["versions"]["torch"]


def test_layers_of_several_rules_are_told_apart(tmp_path):
    model = nn.Sequential(transport_free(nn.Linear(4, 4), "fa"), transport_free(nn.Linear(4, 2), "kp", decay=0.5))
    with Recorder(model, tmp_path / "run"):
        pass
    rule = open_run(tmp_path / "run").config["rule"]
    assert rule["name"] == "mixed"
    assert rule["layers"]["0"] == {"name": "fa", "scale": 1.0, "soft": 0.0}
    assert rule["layers"]["1"]["decay"] == 0.5


def test_probe_batch_has_named_dims(tmp_path):
    batch = torch.randn(3, 2, 8, 8, requires_grad=True), torch.tensor([4, 1, 2])
    with Recorder(converted(), tmp_path / "run", probe_batch=batch):
        pass
    with xr.open_dataset(tmp_path / "run" / "probe_batch.nc") as recorded:
        assert recorded.inputs.dims == ("batch", "channel", "h", "w")
        np.testing.assert_array_equal(recorded.inputs, batch[0].detach())
        np.testing.assert_array_equal(recorded.targets, batch[1])


def test_what_was_staged_before_trouble_is_written_after_it(tmp_path):
    model = converted("kp")
    with Recorder(model, tmp_path / "run") as recorder:
        recorder.keep()
        assert recorder.steps == ()
        assert recorder.stage(1)
        train(model)
        assert recorder.stage(2)
        expected = bits(model)
        train(model)
        recorder.snapshot(3)
        recorder.keep()
        recorder.keep()
        assert recorder.steps == (2, 3)
        assert recorder.stage(3)
        recorder.keep()
        assert recorder.stage(4)
        train(model)
        recorder.keep()
    assert open_run(tmp_path / "run").steps.tolist() == [2, 3, 4]
    assert bits(rebuilt(tmp_path / "run", 2, model)) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["weight", "feedback", "bias"])
def test_the_last_finite_copy_stays_staged(value, which, tmp_path):
    model = converted("kp")
    with Recorder(model, tmp_path / "run") as recorder:
        assert recorder.stage(5)
        expected = bits(model)
        with torch.no_grad():
            getattr(model[5], which).view(-1)[-1] = value
        assert not recorder.stage(10)
        recorder.keep()
        recorder.close("diverged", diverged={"step": 10, "what": which})
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [5]
    assert bits(rebuilt(run.path, 5, model)) == expected
    assert run.config["status"] == "diverged"
    assert run.config["diverged"] == {"step": 10, "what": which}


def test_huge_weights_are_finite(tmp_path):
    model = converted("kp")
    with torch.no_grad():
        model[5].feedback.fill_(3e38)
    with Recorder(model, tmp_path / "run") as recorder:
        assert recorder.stage(0)


@pytest.mark.parametrize("rule", ["bp", "fa", "dfa"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("net", [small_net, lambda: nn.Sequential(nn.Linear(2, 1, bias=False))])
def test_a_snapshot_is_no_larger_than_announced(net, dtype, rule, tmp_path):
    model = net()
    sample = torch.zeros(1, 2, 8, 8) if len(model) > 1 else torch.zeros(1, 2)
    model = transport_free(model.eval(), rule, sample=sample).to(dtype)
    with Recorder(model, tmp_path / "run") as recorder:
        recorder.snapshot(0)
    assert snapshot_path(tmp_path / "run", 0).stat().st_size <= snapshot_bytes(model)
