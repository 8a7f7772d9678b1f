"""The kit over the whole registry, and each of its checks against a rule with a planted fault."""

import inspect
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from wtdiag.trainers.conformance import conform  # noqa: F401  (enters the checks)
from wtdiag.trainers.conformance.requirements import CHECKS, FAILED, NOT_APPLICABLE, PASSED
from wtdiag.trainers.conformance.subject import Subject
from wtdiag.trainers.rules import RULES, rule
from wtdiag.trainers.rules.base import RandomFeedback, Rule
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.lillicrap2016 import FeedbackAlignment
from wtdiag.trainers.rules.perturbed import Perturbed

SUM = {"amp": 0.07, "null": 0.03, "decay": 0.02, "sparse": 0.05, "self": 0.04}


def build(name: str) -> Rule:
    return rule(name, **(SUM if name == "sum" else {}))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", RULES)
def test_every_rule_conforms(name, check):
    verdict = CHECKS[check](Subject(build(name)))
    assert verdict.outcome in (PASSED, NOT_APPLICABLE), verdict.seen
    inapplicable = {
        "gradient-of-loss": not RULES[name].learned or issubclass(RULES[name], (Direct, Perturbed)),
        "compiled": name == "np",
        "learning-is-local": not RULES[name].learned,
        "feedback-moves": RULES[name].transports,
        "error-through-feedback": RULES[name].transports,
    }
    assert (verdict.outcome == NOT_APPLICABLE) == inapplicable.get(check, False), verdict.seen


@pytest.mark.noisy
@pytest.mark.parametrize("check", ["autocast", "no-copy-of-weights"])
def test_noise_on_the_activity_is_not_taken_for_a_fault(check):
    verdict = CHECKS[check](Subject(build("wm-live")))
    assert verdict.outcome == PASSED, verdict.seen


@dataclass(frozen=True, kw_only=True)
class Decaying(RandomFeedback):
    """A rule whose B decays: the base of rules with a fault."""

    name = "decaying"
    title = "Decaying feedback"
    equation = "∂B = B"
    reference = "none"
    learned = True

    def feedback_grad(self, s):
        return s.feedback.clone()

    def feedback_loss(self, s):
        return s.feedback.square().sum() / 2


class Copies(FeedbackAlignment):
    """B is W in disguise."""

    def refresh(self, weight, feedback, std):
        feedback.copy_(weight)

    tied: ClassVar[bool] = True


class TakesSigns(FeedbackAlignment):
    """B has the signs of W, and does not say so: it takes them where B is made."""

    transports: ClassVar[bool] = False

    def refresh(self, weight, feedback, std):
        feedback.copysign_(weight)

    @property
    def tied(self):  # read by layers as an attribute, so that they refresh B; by the kit as what the rule says
        return "trainers/layers" in inspect.stack()[1].filename


class HidesWeight(Decaying):
    """Its learning reads W, which it keeps since the last pass."""

    def refresh(self, weight, feedback, std):
        KEPT[feedback.data_ptr()] = weight

    def feedback_grad(self, s):
        return s.feedback - KEPT[s.feedback.data_ptr()]

    tied: ClassVar[bool] = True


KEPT: dict[int, torch.Tensor] = {}


class HoldsWeight(Decaying):
    """It asks for W, which it does not use."""

    shares = frozenset({"weight"})


class WrongLoss(Decaying):
    """The loss that it writes down is another one."""

    def feedback_loss(self, s):
        return s.feedback.square().sum()


class NeverMoves(Decaying):
    """It learns, but its gradient is zero."""

    def feedback_grad(self, s):
        return torch.zeros_like(s.feedback)


class Leaks(Decaying):
    """Its learning scales the gradient of W."""

    def weight_grad(self, s):
        return s.weight_grad * 2 if s.feedback.requires_grad else s.weight_grad

    def feedback_grad(self, s):
        s.weight_grad.mul_(2.0) if s.weight_grad is not None else None
        return s.feedback.clone()


class Breaks(Decaying):
    """It cannot be traced."""

    def feedback_grad(self, s):
        return s.feedback * (1.0 if float(s.feedback.sum()) > 0 else 2.0)


class Doubles(Decaying):
    """It raises the precision of its gradient."""

    def feedback_grad(self, s):
        if s.feedback.dtype == torch.bfloat16:
            raise TypeError("no such precision")
        return s.feedback.clone()


class Overflows(Decaying):
    """It multiplies what autocast computed in half precision, of which much is lost."""

    def feedback_grad(self, s):
        return s.feedback * (3.0 if s.x.dtype == torch.bfloat16 else 1.0)


class Counts(Decaying):
    """Each call has another gradient, so that no second pass equals the first."""

    def feedback_grad(self, s):
        CALLS.append(1)
        return s.feedback * len(CALLS)


CALLS: list[int] = []


class Undocumented(Decaying):
    title = " "


class NotAField(Decaying):
    """Its coefficient is no field, so that a copy loses it."""

    def __eq__(self, other):
        return self is other

    __hash__ = Decaying.__hash__


FAULTS = {
    "description": (Undocumented, NotAField),
    "no-copy-of-weights": (Copies, TakesSigns),
    "no-transport": (HidesWeight,),
    "weights-not-held": (HoldsWeight,),
    "gradient-of-loss": (WrongLoss,),
    "feedback-moves": (NeverMoves,),
    "learning-is-local": (Leaks,),
    "compiled": (Breaks,),
    "precision": (Doubles,),
    "autocast": (Overflows,),
    "function-transform": (Counts,),
    "checkpointing": (Counts,),
    "distributed": (Counts,),
    "copies": (Counts,),
    "second-order": (Counts,),
}


@pytest.mark.parametrize(("check", "fault"), [(check, fault) for check, faults in FAULTS.items() for fault in faults])
def test_a_planted_fault_fails_its_check(check, fault):
    verdict = CHECKS[check](Subject(fault()))
    assert verdict.outcome == FAILED
    assert verdict.seen


def test_feedback_that_carries_nothing_fails(monkeypatch):
    from wtdiag.trainers.layers.synapse import Synapse

    backward = Synapse.backward

    def silent(ctx, dy):
        dx, *others = backward(ctx, dy)
        return None if dx is None else torch.zeros_like(dx), *others

    monkeypatch.setattr(Synapse, "backward", staticmethod(silent))
    verdict = CHECKS["error-through-feedback"](Subject(rule("fa")))
    assert (verdict.outcome, verdict.seen) == (FAILED, "dense: the error signal does not depend on B")


def test_a_compiled_transform_that_is_not_refused_becomes_backprop_and_fails(monkeypatch):
    from wtdiag.trainers.layers import synaptic

    monkeypatch.setattr(synaptic, "refuse_transforms", lambda: True)
    verdict = CHECKS["compiled-transform"](Subject(rule("fa")))
    assert verdict.outcome == FAILED
    assert "compiled torch.func.grad" in verdict.seen


def test_each_check_has_a_planted_fault():
    assert {*FAULTS, "error-through-feedback", "compiled-transform"} == CHECKS.keys()


def test_a_rule_without_faults_passes_where_those_with_faults_fail():
    for check in CHECKS.values():
        verdict = check(Subject(Decaying()))
        assert verdict.outcome == PASSED, (verdict.check, verdict.seen)
