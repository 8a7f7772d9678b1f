"""Study files: what is read from good ones, and what is said of bad ones."""

import pytest

from wtdiag.probes.errors import InputError
from wtdiag.studies.file.plan import joined, read_plan

GOOD = """
title = "A"
[settings]
depth = 3
[rules.ia-sgd]
rule = "ia"
feedback_optimizer = "sgd"
[rules.sa.coefficients]
self = 0.3
[tune]
search.lr = { log = [0.01, 0.1] }
per = ["depth"]
[[grid]]
factors.rule = ["bp", "ia-sgd", "sa"]
factors.depth = [2, 3]
[[sweep]]
name = "s"
rules = ["sa"]
search.lr = [0.1, 0.2]
[[transfer]]
name = "t"
sweep = "s"
to.deep = { depth = 8 }
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "study.toml").write_text(text)
        return read_plan(str(tmp_path / "study.toml"))

    return read


def test_all_parts_are_read(read):
    plan = read(GOOD)
    assert (plan.name, plan.title, plan.settings) == ("study", "A", {"depth": 3})
    assert plan.methods == {
        "bp": {"rule": "bp"},
        "ia-sgd": {"rule": "ia", "feedback_optimizer": "sgd"},
        "sa": {"rule": "sa", "coefficients": {"self": 0.3}},
    }
    assert plan.grids[0].factors["depth"] == {2: {"depth": 2}, 3: {"depth": 3}}
    assert plan.tune.per == ("depth",)
    assert plan.tune.search["lr"].low == 0.01
    assert plan.sweeps[0].search["lr"].choices == (0.1, 0.2)
    assert plan.transfers[0].to == {"deep": {"depth": 8}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title =", "titel ="), "study: entry: 'titel' is not known; did you mean 'title'"),
        (("depth = 3", "dept = 3"), "coefficient of bp|has no coefficients, got 'dept'|'dept' is not known"),
        (('"sa"]\nfactors.depth', '"say"]\nfactors.depth'), "rule: 'say' is not known"),
        (("factors.depth = [2, 3]", "factors.depth = []"), "factor depth: expected a list of levels"),
        (("factors.depth = [2, 3]", "factors.depth = [2, 2]"), "a level is given twice"),
        (("{ log = [0.01, 0.1] }", "{ log = [0.1, 0.01] }"), "expected low < high"),
        (('name = "s"', 'name = "../s"'), "expected a word that can name a folder"),
        (('sweep = "s"', 'sweep = "z"'), "transfer t: sweep: 'z' is not known"),
        (("search.lr = [0.1, 0.2]", "search = {}"), "expected at least one parameter"),
        (("[[sweep]]", "[sweep]"), r"cannot be parsed|expected \[\[sweep\]\]"),
    ],
)
def test_mistakes_are_named(read, change, message):
    with pytest.raises(InputError, match=message):
        read(GOOD.replace(*change))


def test_a_study_without_anything_to_do_is_refused(read):
    with pytest.raises(InputError, match="there is nothing to train"):
        read('title = "empty"')


def test_an_unknown_study_names_those_there_are():
    with pytest.raises(InputError, match=r"'nowhere' is neither a file nor .*small/two-routes"):
        read_plan("nowhere")


def test_a_broken_file_is_refused(read):
    with pytest.raises(InputError, match="cannot be parsed"):
        read("a = [")


def test_values_are_joined_and_nothing_is_changed():
    base = {"rule": "ia", "coefficients": {"amp": 1.0, "null": 2.0}}
    assert joined(base, {"amp": 3.0, "lr": 0.1}, {"coefficients": {"null": 4.0}}) == {
        "rule": "ia",
        "lr": 0.1,
        "coefficients": {"amp": 3.0, "null": 4.0},
    }
    assert base["coefficients"] == {"amp": 1.0, "null": 2.0}
