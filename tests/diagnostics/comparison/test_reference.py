"""What a run's accuracy is held against: its pair by backprop, or a run that is named."""

import json

import pytest

from wtdiag.diagnostics.comparison.reference import accuracy_of, reference, references
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run, write_json

NETWORK = {"shape": [1, 8, 8], "classes": 10, "majority": 0.2}


@pytest.fixture
def make(tmp_path):
    """Make the directory of a run without snapshots."""

    def run(name, rule="fa", accuracy=0.9, *, on="test", status="finished", network=NETWORK, **settings):
        path = tmp_path / name
        path.mkdir()
        settings = {"rule": rule, "model": "mlp", "data": "digits", "seed": 0, "epochs": 2.0, **settings}
        config = {"status": status, "rule": {"name": rule}, "settings": settings, "network": network}
        write_json(path / "config.json", config)
        rows = [{"step": 1, f"{on}_accuracy": 0.1}, {"step": 2} | ({f"{on}_accuracy": accuracy} if accuracy else {})]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return open_run(path)

    return run


def test_a_run_is_held_against_its_pair_by_backprop(make):
    fa, bp, other = make("fa"), make("bp", "bp", 0.95), make("other", seed=1)
    (held,) = references([fa, bp, other]).values()
    assert references([fa, bp, other]).keys() == {fa.path}
    assert (held.name, held.rule, held.accuracy, held.on, held.differs) == ("bp", "bp", 0.95, "test", "")
    assert accuracy_of(fa, held).gap == pytest.approx(0.05)
    assert references([fa, other]) == {}


def test_a_pair_that_diverged_is_nothing_to_hold_a_run_against(make):
    assert references([make("fa"), make("bp", "bp", status="diverged")]) == {}


def test_a_run_that_is_named_may_differ_which_is_said(make):
    held = reference(make("fa"), make("kp", "kp", 0.8, seed=3, epochs=4.0))
    assert (held.rule, held.accuracy, held.differs) == ("kp", 0.8, "epochs, seed")


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"status": "running"}, "is not finished, but running; expected a finished run"),
        ({"status": "diverged"}, "is not finished, but diverged"),
        ({"on": "validation"}, "is that on the validation set; expected the test set"),
        ({"data": "glyphs"}, r"has other data \(glyphs\); expected digits"),
        ({"network": {"classes": 36}}, r"has other classes \(36\); expected 10"),
    ],
)
def test_what_cannot_be_compared_is_refused(make, differs, says):
    with pytest.raises(InputError, match=f"^against: .*{says}"):
        reference(make("fa"), make("bp", "bp", **differs))


def test_a_run_without_an_accuracy_is_nothing_to_hold_against(make):
    own, empty = make("fa"), make("bp", "bp")
    (empty.path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    with pytest.raises(InputError, match="has no accuracy"):
        reference(own, open_run(empty.path))


@pytest.mark.parametrize(
    ("network", "chance"), [(NETWORK, 0.2), ({"classes": 10}, 0.1), (None, None), ({"majority": 7.0}, None)]
)
def test_chance_is_the_most_frequent_class(make, network, chance):
    here = accuracy_of(make("fa", accuracy=0.21, network=network))
    assert here.chance == pytest.approx(chance) if chance else here.chance != here.chance
    assert here.at_chance == (chance == 0.2)
