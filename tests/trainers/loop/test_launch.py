"""From a config file and the command line to the settings of runs."""

import json

import pytest

from wtdiag.probes.errors import InputError
from wtdiag.trainers.loop.launch import runs_to_train


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "my.toml"
        path.write_text(text)
        return path

    return write


SA = """
rule = "sa"
lr = 0.01
coefficients = {self = 0.1, decay = 0.2}
"""


@pytest.mark.parametrize(
    ("text", "rules", "given", "expected"),
    [
        (SA, [], {}, {"sa": {"self": 0.1, "decay": 0.2}}),
        (SA, [], {"self": 0.3}, {"sa": {"self": 0.3, "decay": 0.2}}),
        (SA, ["sa"], {"self": 0.3}, {"sa": {"self": 0.3, "decay": 0.2}}),
        (SA, ["ia"], {}, {"ia": {}}),  # both have a decay
        (SA, ["ia"], {"amp": 0.4}, {"ia": {"amp": 0.4}}),
        (SA, ["sa", "fa"], {}, {"sa": {"self": 0.1, "decay": 0.2}, "fa": {}}),
        ("coefficients = {decay = 0.2}", ["ia"], {"amp": 0.4}, {"ia": {"amp": 0.4, "decay": 0.2}}),
        (
            "rule = ['sa', 'ia']\ncoefficients = {decay = 0.2}",
            [],
            {"decay": 0.3},
            {"sa": {"decay": 0.3}, "ia": {"decay": 0.3}},
        ),
    ],
)
def test_coefficients_of_a_file_and_those_given(config, text, rules, given, expected):
    given = {"coefficients": given} if given else {}
    runs = runs_to_train(rules, given, config=config(text))
    assert {settings.rule: settings.coefficients for settings in runs.values()} == expected


@pytest.mark.parametrize(
    ("text", "rules", "given", "message"),
    [
        ("epochs = 'many'", [], {}, r"^\S+my\.toml: epochs: expected a number, got 'many'$"),
        ("coefficients = 3", [], {}, r"^\S+my\.toml: coefficients: expected a table of NAME = VALUE, got 3$"),
        ("rul = 'fa'", [], {}, r"^\S+my\.toml: setting: 'rul' is not known"),
        ("rule = 3", [], {}, r"^\S+my\.toml: rule: expected a name"),
        (SA, [], {"epochs": -1.0}, r"^\S+my\.toml and command line: epochs: expected a number ≥ 0, got -1\.0$"),
        (None, ["fa"], {"epochs": -1.0}, r"^command line: epochs: expected a number ≥ 0, got -1\.0$"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_source(config, text, rules, given, message):
    with pytest.raises(InputError, match=message):
        runs_to_train(rules, given, config=config(text) if text else None)


OLD = {"settings": {"rule": "kp", "coefficients": {"scale": 2.0}}, "rule": {"name": "kp", "scale": 2.0, "decay": 0.5}}


@pytest.mark.parametrize(
    ("rules", "given", "expected"),
    [([], {}, {"scale": 2.0, "decay": 0.5}), ([], {"decay": 0.1}, {"scale": 2.0, "decay": 0.1}), (["pfa"], {}, {})],
)
def test_settings_of_an_older_run_hold_the_defaults_that_it_had(tmp_path, rules, given, expected):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(OLD))
    (settings,) = runs_to_train(rules, {"coefficients": given} if given else {}, config=path).values()
    assert settings.coefficients == expected


@pytest.mark.parametrize("given", [{}, {"scale": 2.0}, {"scale": 2.0, "decay": 0.5}, {"decay": 0.5}])
def test_an_older_run_is_resumed_with_the_coefficients_that_it_was_given(tmp_path, given):
    (tmp_path / "config.json").write_text(json.dumps(OLD))
    runs = runs_to_train(["kp"], {"coefficients": given} if given else {}, out=tmp_path, resume=True)
    assert runs[tmp_path].coefficients == {"scale": 2.0, "decay": 0.5}
    with pytest.raises(InputError, match=r"was made with coefficients=\{'decay': 0\.5\}, not \{'decay': 0\.1\}"):
        runs_to_train(["kp"], {"coefficients": {"decay": 0.1}}, out=tmp_path, resume=True)
