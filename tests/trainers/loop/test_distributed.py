"""Several processes train what one does: for each rule, the same weights, evaluation, order of examples and end."""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import socket
import warnings
from itertools import islice
from shutil import copytree

import pytest
import torch

from tests.trainers.known_noise import drawn, driven_back, mirrored
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.optimizers import OPTIMIZERS
from wtdiag.probes.records.schema import open_run
from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop import fit, processes
from wtdiag.trainers.loop.distributed import Ranks, SharedError, share_of
from wtdiag.trainers.loop.fit import Training, start
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.loop.step import Stepper
from wtdiag.trainers.record import checkpoint
from wtdiag.trainers.rules import RULES
from wtdiag.trainers.rules.local import Local
from wtdiag.trainers.rules.perturbed import Perturbed

STEPS, SHAPE, CLASSES = 50, (1, 4, 4), 3
PRECISIONS = {"float64": 1e-10, "float32": 1e-5}
PLAIN = Settings(
    depth=2, width=6, batch_norm=False, lr=0.02, device="cpu", weight_decay=1e-3, clip_norm=5.0, label_smoothing=0.1
)
PRIMITIVES = {"amp": 0.03, "null": 0.01, "decay": 0.1, "sparse": 0.02, "self": 0.05}
SETTINGS = {
    rule: dataclasses.replace(PLAIN, rule=rule, coefficients=PRIMITIVES if rule == "sum" else {}) for rule in RULES
} | {
    "guarded": dataclasses.replace(
        PLAIN, rule="wm-reg", coefficients={"amp": 30, "decay": 9}, s_guard=True, feedback_momentum=0.5
    ),
    "in phases": dataclasses.replace(PLAIN, rule="ia", coefficients={"amp": "linear:0.1:0"}, delay=1, alternate=2),
    "delayed": dataclasses.replace(PLAIN, rule="kp", delay=1, weight_decay=0.0),
    "convolution": dataclasses.replace(PLAIN, rule="dfa", model="conv", depth=3, width=2),
    "in pieces": dataclasses.replace(PLAIN, rule="ia", accumulate=3),
}
OPTIMIZED = {
    kind: dataclasses.replace(PLAIN, rule="ia", model="conv", depth=3, width=2, optimizer=kind, feedback_optimizer=kind)
    for kind in sorted(OPTIMIZERS.keys() - {"sgd", "adam", "adamw"})  # which take PyTorch's fused steps
}
SETTINGS |= OPTIMIZED
# Every rule in both precisions, and the rest in the one that shows the smaller differences.
CASES = {
    (name, precision): dataclasses.replace(settings, precision=precision)
    for name, settings in SETTINGS.items()
    for precision in PRECISIONS
    if name in RULES or precision == "float64"
}
RUN = Settings(
    rule="wm", width=8, depth=2, device="cpu", epochs=2, batch_size=64, snapshots=2, update_noise=0.01, holdout=0.101,
    alternate=3, feedback_optimizer="adam", feedback_lr=0.003,
)  # fmt: skip
EXACT = dataclasses.replace(RUN, rule="fa", precision="float64", batch_norm=False, update_noise=0.0, alternate=0,
                            feedback_optimizer=None, feedback_lr=None, batch_size=63)  # fmt: skip


def steps(settings, ranks, count=STEPS, stopped_at=None):
    """The weights after some steps on batches of even and uneven size, of which one may begin from a checkpoint."""

    def anew():
        model = build_network(settings, shape=SHAPE, classes=CLASSES)
        learner = Learner(model, settings, total=count, epoch=5, ranks=ranks)
        return model, learner, Stepper(model, learner, settings, torch.device("cpu"), ranks)

    model, learner, stepper = anew()
    numbers = torch.Generator().manual_seed(1)
    for step in range(count):
        if step == stopped_at:
            torch.save([model.state_dict(), learner.state_dict()], file := io.BytesIO())
            file.seek(0)
            states = torch.load(file, weights_only=True)
            model, learner, stepper = anew()
            for part, state in zip((model, learner), states, strict=True):
                part.load_state_dict(state)
        examples = (64, 64, 37, 3, 2)[step % 5]
        x, y = torch.randn(examples, *SHAPE, generator=numbers), torch.randint(CLASSES, (examples,), generator=numbers)
        share = ranks.share(examples)
        stepper.take(step, *stepper.place(x[share.part], y[share.part]), share)
    return {name: value.clone() for name, value in model.state_dict().items()}


def every_case(ranks):
    originals = Local.mirror, Local.driven_back, Perturbed.draw
    Local.mirror, Local.driven_back, Perturbed.draw = mirrored, driven_back, drawn
    try:
        return {case: steps(dataclasses.replace(each, devices=ranks.world), ranks) for case, each in CASES.items()}
    finally:
        Local.mirror, Local.driven_back, Perturbed.draw = originals


def noisy(ranks):
    """Weights after steps of the rules with noise, and the noise of the mirror phases."""
    drawn, original = [], Local.mirror

    def watched(self, noise, std):
        mirror = original(self, noise, std)
        drawn.append(mirror.x.sum().item())
        return mirror

    Local.mirror = watched
    try:
        settings = dataclasses.replace(PLAIN, devices=ranks.world, relative_noise=0.1)
        both = {rule: steps(dataclasses.replace(settings, rule=rule), ranks, 4) for rule in ("wm", "brsf")}
    finally:
        Local.mirror = original
    return both, drawn


def message(action):
    try:
        action()
    except SharedError as error:
        return str(error)


def fails_on(rank, ranks):
    with ranks.agreement():
        if ranks.rank == rank:
            raise InputError("data_dir: /nowhere is not a folder")


def train(settings, path, stop=None, **how):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        training = Training(settings, path, **how)
    steps = iter(training)
    for _ in islice(steps, stop):
        pass
    steps.close()
    return [str(each.message) for each in said]


def runs(out):
    """Whole runs: one that goes on without a stop, one that is resumed, and two side by side."""
    fit.CHECKPOINT_SECONDS, before = 0.0, fit.CHECKPOINT_SECONDS
    two = dataclasses.replace(RUN, devices=2)
    exact = dataclasses.replace(EXACT, devices=2)
    try:
        train(two, out / "whole")
        train(two, out / "resumed", stop=23)
        train(two, out / "resumed", resume=True)
        train(exact, out / "exact")
        train(exact, out / "stopped", stop=23)
        side = start({out / "both" / rule: dataclasses.replace(two, rule=rule) for rule in ("wm", "kp")})
        for _ in zip(*side.values(), strict=True):
            pass
    finally:
        fit.CHECKPOINT_SECONDS = before


def process(rank, port, out):
    """What each of the two processes does."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    try:
        ranks = Ranks.of(Settings(devices=2))
        results = {"cases": every_case(ranks), "noisy": noisy(ranks)}
        cases = {kind: CASES[kind, "float64"] for kind in OPTIMIZED}
        results["resumed"] = {
            kind: steps(dataclasses.replace(each, devices=2), ranks, stopped_at=20) for kind, each in cases.items()
        }
        other = {out: dataclasses.replace(PLAIN, devices=2, lr=0.5 + rank)}
        results["disagreement"] = message(lambda: ranks.require_same(other))
        results["failure"] = message(lambda: fails_on(1, ranks))
        runs(out)
        results["taken"] = message(lambda: start({out / "whole": dataclasses.replace(RUN, devices=2)}))
        torch.save(results, out / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes have made: the results of each, and their folder. This process is the first of them."""
    out = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    second = multiprocessing.get_context("spawn").Process(target=process, args=(1, port, out), daemon=True)
    second.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                patch.setenv(name, "")
            process(0, port, out)
        second.join(60)
        assert second.exitcode == 0
    finally:
        second.kill()
    return [torch.load(out / f"{rank}.pt") for rank in (0, 1)], out


@pytest.fixture(scope="module")
def alone():
    return every_case(Ranks())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), [case for case in CASES if case[0] != "wm-live"])  # less a local mean
def test_two_processes_learn_what_one_does(together, alone, name, precision):
    (first, second), _ = together
    if name == "brsf":  # whose B is drawn
        alone = {(name, precision): first["cases"][name, precision]}
    for weights in (first["cases"][name, precision], second["cases"][name, precision]):
        for key, value in alone[name, precision].items():
            torch.testing.assert_close(weights[key], value, rtol=0, atol=PRECISIONS[precision])
    assert all(value.isfinite().all() for value in alone[name, precision].values())


def test_noise_is_alike_where_weights_take_it_and_differs_where_examples_do(together):
    (first, second), _ = together
    for rule, weights in first["noisy"][0].items():
        assert all(torch.equal(value, second["noisy"][0][rule][key]) for key, value in weights.items())
    mirrored = [*first["noisy"][1], *second["noisy"][1]]
    assert len(set(mirrored)) == len(mirrored) > 8


def test_resumed_by_as_many_processes_a_run_is_bitwise_the_same(together):
    _, out = together
    whole, resumed = (checkpoint.load(out / name) for name in ("whole", "resumed"))
    assert whole["devices"] == 2
    for key, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][key]), key
    for key, state in whole["learner"]["feedback"]["state"].items():
        assert all(
            torch.equal(value, resumed["learner"]["feedback"]["state"][key][name]) for name, value in state.items()
        )
    one, two = (open_run(out / name) for name in ("whole", "resumed"))
    assert one.metrics.drop(columns="throughput").equals(two.metrics.drop(columns="throughput"))
    assert one.steps.tolist() == two.steps.tolist()


@pytest.mark.parametrize("kind", OPTIMIZED)
def test_every_optimiser_goes_on_bitwise_in_two_processes(together, kind):
    for results in together[0]:
        for key, value in results["cases"][kind, "float64"].items():
            assert torch.equal(value, results["resumed"][kind][key]), key


def test_side_by_side_runs_learn_what_they_do_alone(together):
    _, out = together
    whole, both = (checkpoint.load(out / name)["model"] for name in ("whole", "both/wm"))
    assert all(torch.equal(value, both[key]) for key, value in whole.items())


def test_evaluation_counts_each_example_once(together, tmp_path):
    _, out = together
    train(EXACT, tmp_path / "one")
    one, two = (open_run(path) for path in (tmp_path / "one", out / "exact"))
    assert one.config["tested"] == two.config["tested"]
    names = ["loss", "accuracy", "validation_loss", "validation_accuracy"]
    for name in names:
        assert one.metrics[name].to_numpy() == pytest.approx(two.metrics[name].to_numpy(), rel=1e-10, nan_ok=True)


def test_resumed_by_another_number_of_processes_a_run_sees_the_same_examples_and_says_so(together, tmp_path):
    _, out = together
    run = copytree(out / "stopped", tmp_path / "run")
    (said,) = train(EXACT, run, resume=True)
    assert "goes on with devices=1 and was stopped with 2" in said
    one, two = (checkpoint.load(path)["model"] for path in (run, out / "exact"))
    for key, value in one.items():
        torch.testing.assert_close(value, two[key], rtol=0, atol=1e-10)


def test_what_one_process_cannot_use_ends_all(together):
    results, _ = together
    for result in results:
        assert result["disagreement"].startswith("lr: process 0 of 2 has 0.5 for ")
        assert result["disagreement"].endswith("process 1 has 1.5; start all processes with the same options")
        assert result["failure"] == "process 1 of 2: data_dir: /nowhere is not a folder"
        assert "holds a run already" in result["taken"]


def test_shares_are_the_whole_batch_once():
    for examples in range(2, 40):
        for world in range(1, 9):
            shares = [share_of(examples, rank, world) for rank in range(world)]
            counted = [i for share in shares if share.weight for i in range(examples)[share.part]]
            assert counted == list(range(examples))
            assert sum(share.weight for share in shares) == pytest.approx(1)
            assert all(len(range(examples)[share.part]) >= 2 for share in shares)


@pytest.mark.parametrize(("device", "count", "message"), [
    ("cpu", 10**4, "devices: 10000 are asked for, but there "),
    ("cuda:1", 2, "device: 'cuda:1' is one device, and devices is 2"),
    ("cuda", 2, "device: 'cuda' cannot be used, because this machine has no GPU"),
])  # fmt: skip
def test_devices_that_are_not_there_are_refused(device, count, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=message):
        processes.check_devices(count, device)


def test_a_port_in_use_is_named(monkeypatch):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        where = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", **where}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(
            InputError, match=f"devices: the processes cannot meet at localhost:{where['MASTER_PORT']} "
        ):
            processes.join("cpu")


def test_settings_of_several_devices_need_as_many_processes():
    with pytest.raises(InputError, match="devices: 2 need as many processes, and there is 1; start them by"):
        Ranks.of(Settings(devices=2))
    with pytest.raises(InputError, match="devices: 4 are too many for batch_size=6; each needs two examples"):
        Settings(devices=4, batch_size=6)
