"""What a run owes to its lower layers: the measure, its file, its finding and its command."""

import copy
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import wtdiag
from tests.diagnostics.synthetic import CONFIG, healthy, metrics
from wtdiag.cli import cli
from wtdiag.diagnostics.analysis.owed import FILE, read_baseline, write_baseline
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.probes.errors import InputError
from wtdiag.trainers import models
from wtdiag.trainers.observe.exchanged_blocks import lower_blocks, with_block_of, without_block
from wtdiag.trainers.observe.lower_layers import ARMS, features
from wtdiag.trainers.observe.recorded import recorded

COUNTS = {"step": 3, "seeds": 2, "epochs": 1, "examples": 300, "tested": 200}
SHARES = {"accuracy": 0.5, "low": 0.25, "high": 0.75, "gain": -0.125, "gain_low": -0.25, "gain_high": 0.0625}
BUDGET = {"epochs": 2, "seeds": 2, "examples": 300, "tested": 200, "device": "cpu"}


def trained(path, **settings):
    made = wtdiag.Settings(**{"rule": "fa", "depth": 3, "epochs": 2, "seed": 3, "device": "cpu"} | settings)
    for _ in wtdiag.Training(made, path):
        pass
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("baseline") / "run")


def test_learned_layers_beat_frozen_ones(run):
    counts = []
    found = wtdiag.baseline(run, **BUDGET, done=lambda done, of: counts.append((done, of)))
    assert list(found.arms) == list(ARMS)
    assert counts == [(n, 8) for n in range(1, 9)]
    assert found.arms["learned"].gain == found.arms["learned"].gain_high == 0
    frozen = found.arms["frozen"]
    assert frozen.gain == pytest.approx(found.arms["learned"].accuracy - frozen.accuracy)
    assert frozen.gain_low <= frozen.gain <= frozen.gain_high
    assert frozen.gain > 0.05
    assert read_baseline(run) == found
    assert wtdiag.baseline(run, **BUDGET) == found


def test_a_run_that_never_moved_is_no_better_than_frozen(tmp_path):
    """With features that are bitwise the initial ones, all seeds agree, and the gain is zero."""
    path = trained(tmp_path / "still", epochs=0, batch_norm=False)
    frozen = wtdiag.baseline(path, **BUDGET).arms["frozen"]
    assert (frozen.gain, frozen.gain_low, frozen.gain_high) == (0, 0, 0)
    assert "no-better-than-frozen" in [
        each.kind for each in diagnose(healthy(), CONFIG, metrics(), baseline=read_baseline(path))
    ]


def test_each_block_is_exchanged_alone(tmp_path):
    """In a run that never moved, no block has earned anything."""
    path = trained(tmp_path / "run", epochs=4, batch_norm=False, width=64)
    counts = []
    found = wtdiag.baseline(path, **BUDGET, by_block=True, done=lambda done, of: counts.append((done, of)))
    assert {block: list(arms) for block, arms in found.blocks.items()} == {
        "fc1": ["frozen", "re-randomised", "removed"],
        "fc2": ["frozen", "re-randomised", "removed"],
    }
    assert counts == [(n, 20) for n in range(1, 21)]
    whole = wtdiag.baseline(path, **BUDGET)
    assert (whole.arms, whole.blocks) == (found.arms, {})
    still = trained(tmp_path / "still", epochs=0, batch_norm=False)
    for arms in wtdiag.baseline(still, **BUDGET, by_block=True).blocks.values():
        assert (arms["frozen"].gain, arms["frozen"].gain_high) == (0, 0)
        assert arms["re-randomised"].gain_high > 0


def test_a_block_has_the_state_of_the_other_network_and_the_rest_its_own():
    torch.manual_seed(0)
    shape = 8, 8, 1
    one, other = (wtdiag.transport_free(models.build("transformer", classes=10, shape=shape), "fa") for _ in range(2))
    blocks = lower_blocks(one)
    assert list(blocks) == ["embed", "encoder.layers.0", "encoder.layers.1"]
    mixed = with_block_of(one, other, blocks["encoder.layers.0"])
    theirs, ours = other.state_dict(), one.state_dict()
    for key, value in mixed.state_dict().items():
        assert torch.equal(value, (theirs if key.startswith("encoder.layers.0.") else ours)[key]), key
    x = torch.randn(3, *shape)
    without = without_block(one, "encoder.layers.0", x)
    with torch.no_grad():
        shorter = copy.deepcopy(wtdiag.revert(one)).eval()
        del shorter.encoder.layers[0]
        torch.testing.assert_close(without.eval()(x), shorter(x))
    assert without_block(one, "embed", x) is None
    assert not one.get_submodule("encoder.layers.0")._forward_hooks


def test_features_are_the_input_of_the_last_layer(run):
    of = recorded(wtdiag.open_run(run), "cpu")
    x, _ = of.examples(of.data.test, 7)
    plain = wtdiag.revert(of.model).eval()
    with torch.no_grad():
        expected = plain[:-1](x)
    assert torch.equal(features(of.model, x), expected)
    assert not any(module._forward_pre_hooks for module in of.model.modules())


def test_the_finding_needs_an_interval_above_zero(run):
    measured = wtdiag.baseline(run, **BUDGET)
    for low, there in ((None, False), (0.01, False), (-0.01, True)):
        frozen = dataclasses.replace(measured.arms["frozen"], gain_low=low or 0.0)
        baseline = dataclasses.replace(measured, arms={**measured.arms, "frozen": frozen})
        found = diagnose(healthy(), CONFIG, metrics(), baseline=None if low is None else baseline)
        assert ("no-better-than-frozen" in [finding.kind for finding in found]) == there


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"arms": 3}',
        json.dumps({"arms": {"frozen": {"accuracy": 1e9}}}),
        json.dumps(COUNTS | {"arms": {"frozen": SHARES | {"gain_high": 1.5}}}),
        json.dumps(COUNTS | {"arms": {}, "seeds": "2"}),
        '{"arms": {"x": []}}',
        json.dumps({"arms": {}, "blocks": 3}),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InputError, match=rf"{FILE}: .*; `wtdiag baseline {tmp_path}` writes it again$"):
        read_baseline(tmp_path)


def test_a_file_that_leads_elsewhere_is_not_read(run, tmp_path):
    wtdiag.baseline(run, **BUDGET)
    (tmp_path / FILE).symlink_to(run / FILE)
    with pytest.raises(InputError, match=f"{FILE}: is a link"):
        read_baseline(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("seeds", 1), ("examples", 5), ("tested", 0)])
def test_numbers_out_of_range_are_refused(run, name, value):
    with pytest.raises(InputError, match=f"^{name}: expected at least"):
        wtdiag.baseline(run, **BUDGET | {name: value})


def test_a_run_of_another_loop_is_refused(tmp_path):
    weights = np.ones((2, 2)), np.ones((2, 2))
    wtdiag.record(tmp_path / "mine", 0, {"fc": weights})
    with pytest.raises(InputError, match="was not made by `wtdiag train`"):
        wtdiag.baseline(tmp_path / "mine")


def test_the_command_shows_what_it_writes(run):
    words = ["baseline", str(run), "--epochs", "1", "--seeds", "2", "--examples", "200", "--tested", "100"]
    words.append("--by-block")
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == list(ARMS)
    assert lines[-1].endswith(FILE)
    assert [line.split()[:3] for line in lines[5:8]] == [[arm, "only", "fc1"] for arm in ARMS[1:]]
    assert write_baseline(read_baseline(run), run) == run / FILE
    assert isinstance(pd.read_json(run / FILE, typ="series")["arms"], dict)


def test_a_run_represents_the_data_as_itself(run, tmp_path):
    table = wtdiag.similarity(run, run)
    assert list(table.layer) == ["fc1", "fc2", "fc3"]
    np.testing.assert_allclose(table.cka, 1)
    np.testing.assert_allclose(table.procrustes, 0, atol=1e-6)
    assert (table.procrustes_null > 0.3).all()
    other = trained(tmp_path / "other", seed=4, epochs=0)
    with pytest.raises(InputError, match=r"have different probe batches; expected the same one$"):
        wtdiag.similarity(run, other)
    result = CliRunner().invoke(cli, ["compare", "--representations", str(run), str(run)], catch_exceptions=False)
    assert result.stdout.splitlines()[1].split()[:3] == ["fc1", "1.000", "0.000"]
