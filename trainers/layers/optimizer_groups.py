"""Groups of parameters for an optimiser: forward weights, and learned feedback weights with a rate of their own."""

from __future__ import annotations

from typing import Any

from torch import nn

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import feedback_parameters, learners, synapses
from wtdiag.trainers.layers.direct_points import learned_at_points


def parameter_groups(model: nn.Module, *, lr: float, feedback_lr: float | None = None) -> list[dict[str, Any]]:
    """Return the parameter groups of one optimiser for all that learns in a converted model.

    The first group, named "forward", holds everything that the task trains, at the rate ``lr``. Learned feedback
    weights form a second, named "feedback", at the rate ``feedback_lr`` and without weight decay, because their local
    gradients are of another scale. Under Kolen-Pollack and rules like it they stand in the first group: W and B take
    the same steps. Fixed feedback is in neither. What the optimiser is given for all groups, such as momentum, holds
    for the feedback too; add it to a group for that group alone.

    Parameters
    ----------
    model
        A converted model.
    lr, feedback_lr
        Learning rates. `Rule.recipe` has the optimiser and the rate with which wtdiag trains a rule's feedback.

    Raises
    ------
    InputError
        If the model is not converted, if its feedback learns by itself and ``feedback_lr`` is missing, or if
        ``feedback_lr`` is given and no feedback learns by itself.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> net = transport_free(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), "ia")
    >>> groups = parameter_groups(net, lr=0.05, feedback_lr=0.005)
    >>> [(group["name"], group["lr"], len(group["params"])) for group in groups]
    [('forward', 0.05, 4), ('feedback', 0.005, 2)]
    """
    layers = [layer for _, layer in synapses(model)]
    if not layers:
        raise InputError("parameter_groups: the model is not converted; use transport_free first")
    own = {id(p) for name, p in feedback_parameters(model).items()}
    at_points, rule = learned_at_points(model), learners(model)[0][1].rule
    together = {
        id(p) for layer in layers if layer.rule.recipe.optimizer == "forward" for p in layer.parameters_of("feedback")
    } | {id(p) for p in at_points if rule.recipe.optimizer == "forward"}
    learned = [p for p in model.parameters() if id(p) in own - together and p.requires_grad]
    forward = [p for p in model.parameters() if id(p) not in own - together and p.requires_grad]
    rules = ", ".join(sorted({learner.rule.name for _, learner in learners(model)}))
    if learned and feedback_lr is None:
        recipe = next(learner.rule.recipe for _, learner in learners(model) if learner.rule.learned)
        raise InputError(
            f"feedback_lr: the feedback of {rules} learns at a rate of its own; wtdiag trains it with "
            f"{recipe.optimizer} at {recipe.lr:g}"
        )
    if feedback_lr is not None and not learned:
        raise InputError(f"feedback_lr: no feedback of {rules} learns at a rate of its own")
    groups: list[dict[str, Any]] = [{"name": "forward", "params": forward, "lr": lr}]
    if learned:
        groups.append({"name": "feedback", "params": learned, "lr": feedback_lr, "weight_decay": 0.0})
    return groups
