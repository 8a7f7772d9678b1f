"""The base class of rules: data and at most four short methods; `trainers.layers.synapse` does the rest for all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from wtdiag.probes.discovery import Registry, enter
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.card import card

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.rules.curvature import Curvature
    from wtdiag.trainers.rules.local import Local

RULES: Registry[type[Rule]] = Registry(
    "rule",
    "wtdiag.rules",
    decorator="register",
    # The order of every list of rules: backprop, then fixed feedback, then learned feedback; within each by name.
    order=lambda rule: (not rule.transports, bool(rule.learned), rule.name),
)


@dataclass(frozen=True)
class Recipe:
    """The default rates of a rule; docs/recipes.md compares them with the best that a search found.

    Attributes
    ----------
    optimizer, lr : str, float
        Optimiser and learning rate of learned feedback weights; "forward" means those of the forward weights.
    forward_lr : float
        Learning rate of the forward weights.
    convolutional_lr : float
        The same for networks whose weights are mostly those of convolutions with batch norm. Feedback alignment learns
        slowly there. It is the same for all rules, so that runs with default rates can be compared.
    """

    optimizer: str = "sgd"
    lr: float = 1.0
    forward_lr: float = 0.05
    convolutional_lr: float = 0.2


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way to send the error down. To add one, write a subclass, set its class variables and `register` it.

    The feedback matrix B replaces W in the adjoint, dx = Bᵀ dy. It has W's shape, except under direct rules.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    equation: ClassVar[str]
    """What the rule computes; ∂W and ∂B are the gradients that the optimisers descend."""
    reference: ClassVar[str]

    learned: ClassVar[bool] = False
    """Whether B is a trained parameter, with a local gradient from `feedback_grad`."""
    transports: ClassVar[bool] = False
    """Whether B *is* W: backprop."""
    tied: ClassVar[bool] = False
    """Whether part of B follows W, without learning, by `tie`: sign symmetry."""
    shares: ClassVar[frozenset[str]] = frozenset()
    """The quantities that the local gradients read besides x and B, of "weight", "bias", "output" and "weight_grad", or
    "error": of a direct rule that of the network's output, of a perturbed rule that of the layer's."""
    affine: ClassVar[bool] = True
    """Whether a layer's own signals and weights give B's gradient, as an affine function of B: a law can be had."""
    counts_examples: ClassVar[bool] = False
    """Whether the rule has to know which axis of a layer's input counts the examples."""
    passes_twice: ClassVar[bool] = False
    """Whether a step takes a second forward pass, with noise in every layer."""
    recipe: ClassVar[Recipe] = Recipe()
    flops: ClassVar[str] = ""
    """What the matrix products of a training step cost at least at one layer, with the default coefficients, over those
    of backprop, which are forward pass, error and gradient of W; "" if it is not known. It is a number, or a formula of
    the size of W, out × fan; n, the times that a batch uses W (examples times positions); m, the middle units of a
    product of two factors; c, the classes; i, the values in the layer's input for one example; and w, the
    multiplications in W x for one example."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check = field.metadata.get("check", _number)
            check(f"{self.name}: {field.name}", getattr(self, field.name))

    def _repr_html_(self) -> str:
        given = ", ".join(f"{field.name} = {getattr(self, field.name)}" for field in dataclasses.fields(self))
        rows = [("equation", self.equation), ("coefficients", given), ("source", self.reference)]
        return card(self.name, self.title, rows)

    def init_feedback(self, feedback: Tensor, std: float, weight: Tensor) -> None:
        """Fill B at conversion; ``std`` is the He standard deviation √(2 / fan-in) of the layer, ``weight`` its W."""
        raise TypeError(f"{self.name} has no feedback weights of its own")

    def tie(self, weight: Tensor, feedback: Tensor) -> None:
        """Bring B up to date with W, in place, if the rule ties them."""

    def refresh(self, weight: Tensor, feedback: Tensor, std: float) -> None:
        """Change B, in place, to its value for the next forward and backward pass."""
        self.tie(weight, feedback)

    def feedback_grad(self, s: Local) -> Tensor:
        """Return B's local gradient, in B's shape."""
        raise TypeError(f"{self.name} has fixed feedback weights")

    def feedback_loss(self, s: Local) -> Tensor | None:
        """Return the loss whose gradient by ``s.feedback`` is `feedback_grad`, if it is written down.

        ``wtdiag check`` differentiates it by autograd and compares the two. Nothing else calls it.
        """
        return None

    def curvature(self, s: Local) -> Curvature | None:
        """Return H of the gradient ∂B = H B − T, if `feedback_grad` is affine and H is cheaper than its products.

        A class that changes `feedback_grad` changes this method too; otherwise it is not asked.
        """
        return None

    def weight_grad(self, s: Local) -> Tensor:
        """Return W's gradient: that of the task, which may be changed in place, plus the rule's own term."""
        return s.weight_grad

    def weight_grad_at_rest(self, s: Local) -> Tensor:
        """Return the gradient of the task if W stands still: it then balances the rule's own term."""
        return -self.weight_grad(s.without_task())


@dataclass(frozen=True, kw_only=True)
class RandomFeedback(Rule):
    """A rule whose B starts as independent Gaussian weights; ``scale`` is their deviation in He deviations."""

    scale: float = dataclasses.field(
        default=1.0,
        metadata={
            "check": lambda *given: _positive(*given),
            "initial": True,
            "about": "size of B at first, in units of the layer's He deviation √(2 / fan-in)",
        },
    )

    def init_feedback(self, feedback: Tensor, std: float, weight: Tensor) -> None:
        feedback.normal_(0.0, self.scale * std)


def register(rule: type[Rule]) -> type[Rule]:
    """Enter a rule class in `RULES` under its name, which makes the rule known everywhere.

    Raises
    ------
    InputError
        If it is not a rule, lacks one of the texts that describe it, or has a name that is taken.
    """
    check_is_rule("register", rule)
    enter(RULES, "rule", rule.name, rule)
    return rule


def check_is_rule(argument: str, kind: object) -> None:
    """Require a class that derives from `Rule` and describes itself.

    Raises
    ------
    InputError
        If it is not a rule, or lacks one of the texts that describe it.
    """
    if not isinstance(kind, type) or not issubclass(kind, Rule):
        raise InputError(f"{argument}: {kind!r:.80} is not a rule; expected a class that derives from Rule")
    for text in ("name", "title", "equation", "reference"):
        value = getattr(kind, text, None)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{argument}: {kind.__name__}: {text} is {value!r:.40}; expected a text")


def rule(name: str, /, **coefficients: Any) -> Rule:
    """Build a rule from its name and coefficients.

    Parameters
    ----------
    name
        A key of `RULES`.
    **coefficients
        Values of that rule's fields; the other fields keep their defaults.

    Raises
    ------
    InputError
        If the rule or a coefficient is unknown, or a value has the wrong type.

    Examples
    --------
    >>> rule("kp", decay=0.1)
    KolenPollack(scale=1.0, decay=0.1)
    """
    check_one_of("rule", name, RULES)
    return build(RULES[name], coefficients)


def build(rule: type[Rule], coefficients: Mapping[str, Any]) -> Rule:
    """Build a rule from its class, which need not be registered, and coefficients.

    Raises
    ------
    InputError
        If a coefficient is unknown, or a value has the wrong type.
    """
    fields = [field.name for field in dataclasses.fields(rule)]
    for coefficient in coefficients:
        if not fields:
            raise InputError(f"{rule.name}: has no coefficients, got {coefficient!r}")
        check_one_of(f"coefficient of {rule.name}", coefficient, fields)
    return rule(**coefficients)


OF_NOISE = "distribution of the noise, of zero mean"
OF_NOISE_STD = "standard deviation of the noise"
OF_REDUCTION = "over the positions of a convolution or a sequence; with the sum, terms grow with their number"


def choice(default: str, *choices: str, initial: bool = False, about: str = "", before: str | None = None) -> Any:
    """Declare a field that takes one of several words, with what they mean.

    ``initial`` says that it sets the initial B, and ``before`` what the rule did when it had no such field, where that
    is not the default.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "check": lambda argument, value: check_one_of(argument, value, choices),
            "choices": choices,
            "initial": initial,
            "about": about,
            "before": default if before is None else before,
        },
    )


def positive(default: float, *, initial: bool = False, about: str = "") -> Any:
    """Declare a field that takes a positive number; ``initial`` says that it sets the initial B."""
    return dataclasses.field(default=default, metadata={"check": _positive, "initial": initial, "about": about})


def share(default: float, *, initial: bool = False, about: str = "") -> Any:
    """Declare a field that takes a number from 0 to 1; ``initial`` says that it sets the initial B."""
    return dataclasses.field(default=default, metadata={"check": _share, "initial": initial, "about": about})


def whole(default: int, *, initial: bool = False, about: str = "") -> Any:
    """Declare a field that takes a whole number from 1 on; ``initial`` says that it sets the initial B."""
    return dataclasses.field(default=default, metadata={"check": _whole, "initial": initial, "about": about})


def number(default: float, *, about: str = "") -> Any:
    """Declare a field that takes any finite number."""
    return dataclasses.field(default=default, metadata={"about": about})


def _number(argument: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{argument}: expected a finite number, got {value!r}")


def _positive(argument: str, value: Any) -> None:
    _number(argument, value)
    if value <= 0:
        raise InputError(f"{argument}: expected a positive number, got {value!r}")


def _whole(argument: str, value: Any) -> None:
    _number(argument, value)
    if value != int(value) or value < 1:
        raise InputError(f"{argument}: expected a whole number from 1 on, got {value!r}")


def _share(argument: str, value: Any) -> None:
    _number(argument, value)
    if not 0 <= value <= 1:
        raise InputError(f"{argument}: expected a number from 0 to 1, got {value!r}")
