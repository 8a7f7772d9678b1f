"""Advice fits the rule, the model, the optimiser and what is on already, and ends in a command that wtdiag accepts."""

import json
import shlex
from functools import cache, partial
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest

import wtdiag
from bench.evidence.followed import Advised, kinds_table
from tests.diagnostics.findings.planted_runs import run_of
from tests.diagnostics.synthetic import CONFIG, healthy, metrics
from wtdiag.cli import cli
from wtdiag.cli.options import given
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.advice import Case, Suggestion, advise, command
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.finding import read_findings, write_findings
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import settings_with_role
from wtdiag.trainers.loop.changes import accepts_of
from wtdiag.trainers.loop.launch import parse_coefficients, runs_to_train
from wtdiag.trainers.observe.open_run import open_run
from wtdiag.trainers.record.provenance import describe

SHAPES = {"mlp": (1, 8, 8), "conv": (1, 16, 16), "resnet8": (1, 16, 16), "vgg11": (3, 32, 32)}
ON = {"batch_norm": False, "update_noise": 0.1, "weight_decay": 0.0, "clip_norm": None}
OFF = {"batch_norm": True, "update_noise": 0.0, "weight_decay": 1e-3, "clip_norm": 1.0}
VARIANTS = [("mlp", "sgd", ON), ("conv", "adam", OFF), ("resnet8", "sgd", OFF), ("vgg11", "adam", ON)]
TRAIN = cli.get_command(click.Context(cli), "train")


def recorded(path, rule, **settings):
    """Write a run directory that holds a config alone, and open it."""
    settings = wtdiag.Settings(rule=rule, **settings)
    path.mkdir(parents=True, exist_ok=True)
    content = describe(settings, shape=SHAPES[settings.model], classes=10, majority=0.1) | {"status": "finished"}
    (path / "config.json").write_text(json.dumps(content))
    return open_run(path)


def wanted(text):
    """Return the settings of the run that a command asks for, as ``wtdiag train`` reads it."""
    name, subcommand, *words = shlex.split(text.replace("\\\n", " "))
    assert (name, subcommand) == ("wtdiag", "train")
    options = TRAIN.make_context("train", list(words)).params
    rules, coefficients, config, out, *_ = (
        options.pop(each) for each in ("rules", "coefficients", "config", "out", "resume", "force", "loggers", "file")
    )
    asked = given(options) | ({"coefficients": parse_coefficients(coefficients)} if coefficients else {})
    ((path, settings),) = runs_to_train(rules, asked, config=config, out=out).items()
    return path, settings


@cache
def measured(kind, learned):
    """Return the analysis and metrics of a run with a fault of a kind in fc4, of feedback that learns or does not."""
    analysis, _, log = run_of(kind)
    analysis = analysis.assign_coords(fixed=("layer", np.full(6, not learned)))
    if learned:
        return analysis, log
    laws = ["rest_distance", "relaxation_time", "step_size_number", "predicted_gain"]
    return analysis.drop_vars(laws), log.drop(columns="feedback_lr")


@pytest.mark.parametrize("rule", wtdiag.RULES)
def test_every_command_is_accepted_and_changes_the_run(tmp_path, rule):
    seen, learned = set(), wtdiag.RULES[rule].learned
    for model, optimizer, others in VARIANTS:
        run = recorded(
            tmp_path / "a run", rule, model=model, optimizer=optimizer, **others | {"alternate": 2 * learned}
        )
        now, accepts = run.settings(), accepts_of(run)
        for kind in KINDS:
            analysis, log = measured(kind, learned)
            case = Case(View(analysis, run.config, log), 3, accepts)
            for remedy in KINDS[kind].remedies:
                _, changes = advise(case, [remedy])
                if not changes:
                    continue
                path, settings = wanted(command(changes, run.path))
                assert path == tmp_path / "a run-2"
                assert settings.rule_at(0, 0) != now.rule_at(0, 0) or settings != now
                assert settings.as_dict() | changes | {"coefficients": {}} == settings.as_dict() | {"coefficients": {}}
                if not wtdiag.RULES[settings.rule].learned:
                    assert changes.keys().isdisjoint(settings_with_role("feedback"))
                assert not (changes.get("batch_norm") and (others["batch_norm"] or model == "vgg11"))
                assert "depth" not in changes or model in ("mlp", "conv")
                seen.add(tuple(changes))
    assert ("lr",) in seen
    assert (("feedback_lr",) in seen) == (learned and wtdiag.RULES[rule].recipe.optimizer != "forward")


def test_advice_names_the_layer_and_ends_in_one_command(tmp_path):
    run = recorded(tmp_path / "sa", "sa")
    finding = diagnose(*run_of("step-too-large")[:1], run.config, metrics(), accepts_of(run))[0]
    assert finding.advice[0].startswith("Lower the feedback learning rate from 1 to 0.16: the step-size number of fc4")
    assert finding.changes == {"feedback_lr": 0.16}
    assert wanted(command(finding.changes, run.path))[1].feedback_lr == 0.16
    assert "own" not in finding.advice[0]


def test_a_loop_of_ones_own_is_told_in_python():
    """Wtdiag did not train it, so there is no command; coefficients that the rule lacks are not spoken of."""
    finding = diagnose(*run_of("step-too-large"))[0]
    assert finding.changes == {}
    assert finding.advice[0].endswith(
        "In a training loop of your own, give the optimiser's group of feedback weights lr=0.16."
    )
    analysis, _, log = run_of("angle-at-ceiling")
    ia = {"rule": {"name": "ia", "inputs": "activations", "amp": 0.04}}
    first = diagnose(analysis, ia, log)[0].advice[0]
    assert first.endswith("transport_free(model, wtdiag.rule(\"ia\", inputs='noise')).")
    assert not any("noise in place" in text for text in diagnose(analysis, CONFIG, log)[0].advice)
    layers = {"rule": {"name": "mixed", "layers": {"fc4": ia["rule"], "fc3": CONFIG["rule"]}}}
    assert diagnose(analysis, layers, log)[0].advice[0] == first


def test_coefficients_are_set_so_that_the_gain_becomes_one():
    analysis, config, log = run_of("feedback-too-large")
    analysis["predicted_gain"][:] = 10.0
    assert "self from 0.2 to 0.02" in diagnose(analysis, config, log)[0].advice[0]
    analysis, config, log = run_of("feedback-too-small")
    analysis["predicted_gain"][:] = -2.0
    assert "self from 0.2 to -0.1" in diagnose(analysis, config, log)[0].advice[0]
    still = {"rule": {"name": "sa", "self": 0.0, "decay": 0.2}}
    assert "self=0.2" in diagnose(analysis, still, log)[0].advice[0]


def test_feedback_learns_no_faster_than_its_stability_allows():
    analysis, config, log = run_of("feedback-too-slow")
    analysis["step_size_number"][:] = 0.05
    assert "from 1 to 4, at which the step-size number reaches 0.2" in diagnose(analysis, config, log)[0].advice[0]
    analysis["step_size_number"][2, 0] = 0.3  # in any layer, at any time
    assert not any("learn faster" in text for text in diagnose(analysis, config, log)[0].advice)


@pytest.mark.parametrize("name", [".", "runs/a b", "a;b$(c)", "-x"])
def test_commands_quote_the_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command({"lr": 0.1}, Path(name)).replace("\\\n", " "))
    assert words[:3] == ["wtdiag", "train", "--config"]
    run = Path(words[3]).parent
    assert run.absolute() == Path(name).absolute()
    assert words[4:] == ["--lr", "0.1", "--out", f"{run.parent / run.name}-2"]
    assert TRAIN.make_context("train", words[2:]).params["config"] == Path(words[3])
    Path(words[-1]).mkdir(parents=True)
    assert shlex.split(command({"lr": 0.1}, Path(name)))[-1] == f"{words[-1][:-1]}3", "the second is there already"


def test_findings_keep_their_advice(tmp_path):
    findings = diagnose(*run_of("step-too-large"), lambda changes: True)
    write_findings(findings, tmp_path / "findings.json")
    assert read_findings(tmp_path / "findings.json") == findings
    content = json.loads((tmp_path / "findings.json").read_text())
    for changes in ({"rm": 1}, {"lr": -1}, {"coefficients": {"a b": 1}}, {"coefficients": {"amp": [1]}}, [1]):
        content["findings"][0]["changes"] = changes
        (tmp_path / "findings.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match="finding 1: changes: "):
            read_findings(tmp_path / "findings.json")
    content["findings"][0] |= {"changes": {}, "advice": [1]}
    (tmp_path / "findings.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected a list of texts"):
        read_findings(tmp_path / "findings.json")
    # Format 1 held one text, and no settings.
    content["findings"][0]["advice"] = "Lower the step."
    del content["findings"][0]["changes"]
    (tmp_path / "findings.json").write_text(json.dumps(content | {"format": 1}))
    assert read_findings(tmp_path / "findings.json")[0].advice == ("Lower the step.",)


@pytest.mark.parametrize(("ratio", "scaled"), [(2.5, True), (1.0, False), (0.4, False)])
def test_too_large_steps_of_w_below_a_larger_b_are_told_to_begin_with_a_smaller_one(ratio, scaled):
    analysis, _, lines = run_of("forward-step-too-large")
    analysis.norm_ratio[:] = ratio
    config = {"rule": {"name": "fa", "scale": 1.0}, "settings": {"lr": 0.05}}
    first = next(each for each in diagnose(analysis, config, lines) if each.kind == "forward-step-too-large")
    assert first.advice[0].startswith("Lower the learning rate")
    assert ("change its scale from 1 to 0.4" in " ".join(first.advice)) == scaled
    assert ("B began 2.5 times as large as W" in first.summary) == scaled


def test_a_sentence_writes_numbers_as_its_command_does():
    analysis, _, lines = run_of("healthy")
    (said, *_), changes = advise(
        Case(View(analysis, {"settings": {"lr": 2e-4}}, lines), 0, lambda changes: True), [remedies.lower_rate]
    )
    assert said.endswith("from 0.0002 to 2e-5.")
    assert "--lr 2e-5 " in command(changes, Path("a"))


def test_a_setting_of_all_layers_is_not_said_to_be_of_one():
    analysis, config, log = run_of("feedback-too-slow")
    case = Case(View(analysis, config, log), 3, lambda changes: True)
    (said, *_), _ = advise(case, [remedies.faster_feedback])
    assert said.startswith("Let the feedback learn faster: raise its learning rate, in all layers, from 1 to 2,")


def test_no_remedy_is_told_twice():
    analysis, _, lines = run_of("healthy")
    case = Case(View(analysis, {"settings": {"lr": 0.05}}, lines), 0)
    lines, _ = advise(case, [remedies.lower_rate, "Wait.", remedies.lower_rate, "Wait."])
    assert [line.split(".")[0] for line in lines] == ["Lower the learning rate of the forward weights from 0", "Wait"]


def test_commands_come_first_and_few():
    case = Case(View(healthy(), {}, pd.DataFrame()), None, lambda changes: changes != {"lr": 1.0})
    refused, good = Suggestion("no", {"lr": 1.0}), Suggestion("yes", {"lr": 2.0})
    texts, changes = advise(case, ["check", lambda case: refused, lambda case: None, lambda case: good, "a", "b"])
    assert (texts, changes) == (("yes", "check", "a"), {"lr": 2.0})


def said(kind, rule, **measures):
    """What a finding of a kind advises first, in a run of a loop of one's own whose analysis has such values."""
    analysis, _, log = run_of(kind)
    for name, value in measures.items():
        analysis[name][:] = value
    return advise(Case(View(analysis, {"rule": rule}, log), 3), KINDS[kind].remedies)[0]


def test_a_stronger_pull_makes_feedback_smaller_and_faster_as_far_as_it_is_stable():
    rule = {"name": "wm", "inputs": "noise", "amp": 0.1, "decay": 0.01}
    slow = said("feedback-too-slow", rule, predicted_gain=10.0, step_size_number=0.005)
    assert slow[0].startswith("Change decay from 0.01 to 0.1, ")
    fast = said("feedback-too-slow", rule, predicted_gain=10.0, step_size_number=0.05)
    assert fast[0].startswith("Change amp from 0.1 to 0.01, ")
    small = said("feedback-too-small", rule, predicted_gain=0.1)
    assert small[0].startswith("Change amp from 0.1 to 1, ")
    assert "gain" not in said("feedback-too-large", rule, predicted_gain=0.1)[0]
    assert "gain" not in said("feedback-too-large", rule, predicted_gain=1e4)[0]  # of a run that broke


def test_only_feedback_that_decays_with_w_comes_to_it_by_its_decay():
    kp, shared = {"name": "kp", "scale": 1.0, "decay": 0.01}, "decay that W and B share"
    slow = said("feedback-too-slow", kp, relaxation_time=200.0)
    assert any(f"Raise the {shared} from 0.01 to 0.05: " in text for text in slow), "W then forgets within 40 steps"
    assert not any(shared in text for text in said("feedback-too-slow", kp, relaxation_time=50.0))
    dkp = {"name": "dkp", "scale": 1.0, "projection": "own", "decay": 0.01, "reduction": "mean"}
    assert not any(shared in text for text in said("feedback-too-slow", dkp, relaxation_time=200.0))


def test_where_b_takes_the_steps_of_w_only_time_lets_it_follow(tmp_path):
    analysis, _, log = run_of("feedback-too-slow")
    for rule, first in (("kp", "Train for longer"), ("sa", "Lower the learning rate of the forward weights")):
        run = recorded(tmp_path / rule, rule, lr=0.05)
        analysis["relaxation_time"][:] = 40.0 if rule == "kp" else np.nan
        remedies_of = KINDS["feedback-too-slow"].remedies
        texts, _ = advise(Case(View(analysis, run.config, log), None, accepts_of(run)), remedies_of)
        assert any(text.startswith(first) for text in texts)
        assert any("of the forward weights" in text for text in texts) == (rule == "sa")


def test_a_shared_decay_that_makes_w_forget_is_lowered():
    kp = {"name": "kp", "scale": 1.0, "decay": 0.05}
    first = said("forward-step-too-large", kp, relaxation_time=10.0)[0]
    assert first.startswith("Lower the decay that W and B share from 0.05 to 0.013: at the highest rate, W now forgets")
    for time in (40.0, 0.2):  # with the latter, the rate is at fault
        assert not said("forward-step-too-large", kp, relaxation_time=time)[0].startswith("Lower the decay")


@pytest.mark.parametrize(("rule", "lr", "advised"), [("kp", 0.05, 0.05), ("kp", 0.1, 0.025), ("sa", 0.05, None)])
def test_without_decay_the_rate_tells_how_much_of_it_w_bears(tmp_path, rule, lr, advised):
    run = recorded(tmp_path, rule, lr=lr, coefficients={"decay": 0.0})
    found = remedies.stronger_shared_decay(Case(View(healthy(), run.config, pd.DataFrame()), None, accepts_of(run)))
    assert (found and found.changes) == (advised and {"coefficients": {"decay": advised}})


def test_noise_in_place_of_activations_is_for_rules_that_read_them():
    sa = {"name": "sum", "inputs": "activations", "amp": 0.0, "null": 0.0, "decay": 0.2, "sparse": 0.0, "self": 0.2}
    assert not any("white noise" in text for text in said("angle-at-ceiling", sa))
    assert "white noise" in said("angle-at-ceiling", sa | {"null": 0.1})[0]
    assert not any("white noise" in text for text in said("angle-at-ceiling", sa | {"null": 0.1, "inputs": "noise"}))


def test_undertrained_runs_are_told_the_way_that_costs_no_time_first():
    ia = {"name": "ia", "inputs": "activations", "amp": 0.04}
    case = run_of("undertrained")[0]
    assert "white noise" in said("undertrained", ia, predicted_angle=50.0)[0]
    assert "white noise" not in said("undertrained", ia, predicted_angle=10.0)[0]
    slow = said("undertrained", {}, relative_update=0.002)
    assert slow[0].startswith("Raise the learning rate of the forward weights from 0.05 to 1.5: ")
    assert "no measured step changed them by more than 0.2 %" in slow[0]
    assert float(case.relative_update.max()) < 0.03
    assert not any("learning rate" in text for text in said("undertrained", {}, relative_update=0.05))


def test_following_advice_is_judged_by_accuracy_and_divergence():
    advised = partial(Advised, "mlp", "sa", "", 0, "sign-flip", "fc4", other="", others=None)
    for before, after, helped, harmed in (
        (0.3, 0.36, True, False), (0.3, 0.34, False, False), (0.36, 0.3, False, True), (None, 0.1, True, False),
        (0.1, None, False, True), (None, None, False, False),
    ):  # fmt: skip
        run = advised("--lr 1", before, after)
        assert (run.helped, run.harmed) == (helped, harmed)
        assert not advised("", before, after).helped
        assert not advised("", before, after).harmed
    table = kinds_table([advised("--lr 1", 0.3, 0.9), advised("--lr 1", 0.9, 0.3), advised("", 0.3, None)])
    assert "| sign-flip | 1 of 3 | 1 of 3 | – | – |" in table
