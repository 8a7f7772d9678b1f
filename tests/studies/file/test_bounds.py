"""Numbers that make no sense are refused where they are read, and cost nothing."""

import pytest

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import write_json
from wtdiag.studies.engine.cell import outcome_of
from wtdiag.studies.file.plan import read_plan
from wtdiag.studies.file.space import Range
from wtdiag.studies.parts.sweep import Sweep
from wtdiag.studies.study import Study
from wtdiag.trainers.config.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("depth", 2**63), ("depth", 10**400), ("epochs", 1e308), ("epochs", 10**400), ("width", 10**9)],
        *[("lr", 10**400), ("seed", 2**64), ("snapshots", 10**12), ("warmup", 1e300), ("batch_size", 10**400)],
    ],
)
def test_settings_have_a_largest_value(name, value):
    with pytest.raises(InputError, match=rf"^{name}: expected a number ≤ [^\n]{{1,100}}$"):
        Settings(**{name: value})


def test_trials_have_a_largest_number(tmp_path):
    with pytest.raises(InputError, match="trials: expected a number from 1 to 100000, got 1000000000"):
        Sweep(tmp_path / "sweep", methods={}, settings={}, space={"lr": Range(0.1, 1.0)}, trials=10**9)


STUDY = """
[[sweep]]
name = "one"
rules = ["fa"]
search = {lr = [0.1, 0.2]}

[[transfer]]
name = "other"
sweep = "one"
to = {deep = {depth = 4}}
top = TOP
"""


@pytest.mark.parametrize("top", ["'a'", "1.5", "0", "true"])
def test_the_number_of_configurations_is_a_number(tmp_path, top):
    (tmp_path / "study.toml").write_text(STUDY.replace("TOP", top))
    with pytest.raises(InputError, match="transfer other: top: expected a positive whole number"):
        read_plan(str(tmp_path / "study.toml"))


@pytest.mark.parametrize("text", ["settings = {coefficients = 9}", "[rules.ia]\ncoefficients = [1]"])
def test_coefficients_are_a_table(tmp_path, text):
    (tmp_path / "study.toml").write_text(f"{text}\n{STUDY.replace('TOP', '1')}")
    with pytest.raises(InputError, match="coefficients: expected a table"):
        read_plan(str(tmp_path / "study.toml"))


def test_a_grid_has_a_largest_number_of_cells(tmp_path):
    levels = list(range(1, 400))
    (tmp_path / "study.toml").write_text(
        f"[[grid]]\n[grid.factors]\nseed = {levels}\ndepth = {levels}\nwidth = {levels}\n"
    )
    with pytest.raises(InputError, match="grid: its factors have 63521199 combinations"):
        Study(tmp_path / "new", read_plan(str(tmp_path / "study.toml")))


@pytest.mark.parametrize("line", ['{"step": "x"}', '{"step": null}', '{"step": NaN}', '{"loss": 1}', '{"step": [3]}'])
def test_a_last_line_without_a_step(tmp_path, line):
    write_json(tmp_path / "config.json", {"status": "running"})
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n' + line + "\n")
    assert outcome_of(tmp_path).step == 2
