"""Direct feedback at chosen modules: the output's error enters there, and inside a module it goes on by backprop."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.batch_axis import batch_axis_of
from wtdiag.trainers.layers.synapse import project, projected_inputs, saved

if TYPE_CHECKING:
    from wtdiag.trainers.layers.error_path import ErrorPath

FEEDBACK = "point_feedback"
"""Name of B in the module at whose output the error enters."""


class _Entry(torch.autograd.Function):
    """The identity on a module's output h; its backward pass replaces the error from above by Bᵀ e.

    B's local gradient comes from e and h, where B learns.
    """

    @staticmethod
    def forward(output: Tensor, feedback: Tensor, point: Point, batch_axis: int) -> tuple[Tensor, Tensor]:
        return output.view_as(output), output.new_zeros(output.shape[batch_axis], feedback.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        above, feedback, ctx.point, ctx.batch_axis = inputs
        learns = ctx.point.path.rule.learned and feedback.requires_grad  # otherwise h is not held
        ctx.save_for_backward(feedback, *([above] if learns else []))
        ctx.shape = above.shape
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, error: Tensor | None, signal: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.rule = ctx.point.path.rule
        feedback, *learns_from = saved(ctx)
        if ctx.point.exact or error is None:
            return error, None, None, None
        if signal is None:
            raise RuntimeError(
                f"{ctx.rule.name}: the output error never reached a point; call the converted model itself, "
                "not its parts, take the loss of its output, and checkpoint with use_reentrant=False"
            )
        like = signal.new_empty(1).expand(ctx.shape)
        dfeedback = None
        if learns_from:
            with torch.no_grad():
                h = projected_inputs(learns_from[0], feedback, ctx.batch_axis)
                dfeedback = ctx.rule.projection_grad(signal, h, feedback.detach())
        return project(signal, feedback, like, ctx.batch_axis).to(error.dtype), dfeedback, None, None


class Point:
    """A module at whose output the output's error enters, as a forward hook of that module.

    Attributes
    ----------
    exact : bool
        Whether the error from above passes instead, as in backprop; `trainers.observe.tracer` compares the two.
    """

    def __init__(self, name: str, path: ErrorPath, batch_axis: int) -> None:
        self.name, self.path, self.batch_axis, self.exact = name, path, batch_axis, False

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        leaves, structure = _pytree.tree_flatten(output)
        at = _activations(leaves, self.name)
        leaves[at], silent = _Entry.apply(leaves[at], getattr(module, FEEDBACK), self, self.batch_axis)
        if torch.is_grad_enabled():
            self.path.silent.append(silent)
        return _pytree.tree_unflatten(leaves, structure)


def points_of(model: nn.Module) -> Iterator[tuple[nn.Module, Point]]:
    """Yield each module of a converted model at whose output the output's error enters, with its point."""
    for module in model.modules():
        for hook in module._forward_hooks.values():
            if isinstance(hook, Point):
                yield module, hook


def learned_at_points(model: nn.Module) -> list[nn.Parameter]:
    """Return the feedback weights of points that learn."""
    return [getattr(module, FEEDBACK) for module, point in points_of(model) if point.path.rule.learned]


def chosen(model: nn.Module, patterns: Collection[str]) -> dict[str, nn.Module]:
    """Return the modules that patterns name; ``*`` stands for any part of one name between two dots.

    Raises
    ------
    InputError
        If a pattern names no module, the whole model, or one without a forward pass of its own.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 2))
    >>> list(chosen(net, ["1.*"]))
    ['1.0', '1.1']
    """
    found: dict[str, nn.Module] = {}
    names = {name: module for name, module in model.named_modules() if name}
    for pattern in patterns:
        parts = pattern.split(".")
        matched = [
            name for name in names if len(own := name.split(".")) == len(parts) and all(map(fnmatchcase, own, parts))
        ]
        if not matched:
            near = ", ".join(name for name in names if name.count(".") == pattern.count("."))
            raise InputError(f"points: {pattern!r} names no module; of its depth there are {near or 'none'}")
        for name in matched:
            if type(names[name]).forward is nn.Module.forward:
                raise InputError(
                    f"points: {name} ({type(names[name]).__name__}) has no forward pass of its own; name what it "
                    f"holds: {name}.*"
                )
            found[name] = names[name]
    return {name: found[name] for name in names if name in found}


def add_point(
    name: str,
    module: nn.Module,
    outputs: Mapping[str, Any],
    path: ErrorPath,
    axis: tuple[int | None, int | None],
    *,
    maps: bool,
) -> None:
    """Let the output's error enter at the output of a module.

    Parameters
    ----------
    name, module
        The module and its name.
    outputs
        What each module returned for the sample, by name.
    path
        The error path of the whole network.
    axis
        Axis of the examples in the output, or None, and the number of examples, from which it is found.
    maps
        Whether the output is a map, (batch, channels, ...). Then B tells all entries of one example apart. Elsewhere it
        tells the units apart, as in linear layers, and every position receives the same error.

    Raises
    ------
    InputError
        If the module did not run, or did not return one tensor of activations, or the axis is not known.
    """
    if name not in outputs:
        raise InputError(f"points: {name} did not run for the sample")
    leaves = _pytree.tree_leaves(outputs[name])
    like = leaves[_activations(leaves, name)]
    given, examples = axis
    if maps or like.dim() <= 2:
        given = 0
    elif given is None and (given := batch_axis_of(like.shape, examples)) is None:
        raise InputError(
            f"points: {name}: which axis counts the examples in {tuple(like.shape)} is not known; give batch_axis=, or "
            "a sample= whose batch size differs from its other sizes"
        )
    size = like.shape[1:] if maps else like.shape[-1:]
    feedback = like.new_empty(path.classes, *size)
    path.rule.init_feedback(feedback, 1.0, feedback)
    module.register_parameter(FEEDBACK, nn.Parameter(feedback, requires_grad=path.rule.learned))
    module.register_forward_hook(Point(name, path, given))


def remove_points(model: nn.Module) -> None:
    """Remove all points of a model."""
    for module, point in list(points_of(model)):
        module._parameters.pop(FEEDBACK)
        for key in [key for key, hook in module._forward_hooks.items() if hook is point]:
            del module._forward_hooks[key]


def _activations(leaves: Sequence[Any], name: str) -> int:
    found = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if len(found) != 1:
        raise InputError(f"points: {name} returns {len(found)} tensors of activations; expected one")
    return found[0]
