"""The optimisers that a run may name, with what is known of their steps; torch is not needed for that.

Each is PyTorch's, with its defaults, except for the learning rate, for the weight decay, which is a setting, and for
the momentum of SGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class OptimizerFacts:
    """What is known of an optimiser.

    Attributes
    ----------
    title, about : str
        Its name, and one sentence on its steps.
    theory : {"sgd", "adam", ""}
        Whose theory holds for its steps: step-size number, relaxation time and noise at rest of SGD; relative step,
        travel time and noise at rest of Adam. If it is empty, these measures are not known.
    decoupled : bool
        Whether weight decay multiplies the weights by 1 − ηλ, apart from the gradient. Otherwise it is added to the
        gradient.
    lr : float or None
        Default learning rate of W and B under this optimiser; None stands for that of the rule.
    """

    title: str
    about: str
    theory: Literal["sgd", "adam", ""] = ""
    decoupled: bool = False
    lr: float | None = None


OPTIMIZERS = MappingProxyType(
    {
        "sgd": OptimizerFacts("SGD", "A step is proportional to the gradient, or to its running sum.", theory="sgd"),
        "adam": OptimizerFacts(
            "Adam", "Each entry moves by up to η: mean over root mean square of its gradients.", theory="adam"
        ),
        "adamw": OptimizerFacts("AdamW", "Adam with decoupled weight decay.", theory="adam", decoupled=True),
        "radam": OptimizerFacts("RAdam", "Adam whose first steps are shorter, while its means are uncertain.", lr=0.05),
        "rmsprop": OptimizerFacts("RMSprop", "The gradient over the root mean square of the recent ones.", lr=0.005),
        "adagrad": OptimizerFacts("Adagrad", "The gradient over the root of the sum of all squares so far.", lr=0.05),
        "muon": OptimizerFacts(
            "Muon",
            "The mean of the gradients of a matrix with all its singular values set to about 1. Weight matrices and "
            "kernels (as matrices of out × all the rest), of W and B, take it; biases, norms, embeddings and left "
            "factors take AdamW at the same rate, to whose size of steps Muon's are scaled.",
            decoupled=True,
            lr=0.02,
        ),
    }
)  # fmt: skip
"""The optimisers by the name that settings give them."""


def theory(optimizer: str) -> str:
    """Return whose theory holds for the steps of an optimiser, "sgd", "adam" or "" if none is known.

    Examples
    --------
    >>> theory("adamw"), theory("muon")
    ('adam', '')
    """
    return OPTIMIZERS[optimizer].theory if optimizer in OPTIMIZERS else ""
