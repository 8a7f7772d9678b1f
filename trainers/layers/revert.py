"""The way back: a copy of a converted model with PyTorch's own layers."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.conversions import rebased
from wtdiag.trainers.layers.convert import copied, synapses
from wtdiag.trainers.layers.direct_points import remove_points
from wtdiag.trainers.layers.error_path import ErrorPath
from wtdiag.trainers.layers.matrices import Composite, Matrix
from wtdiag.trainers.layers.synaptic import Converted
from wtdiag.trainers.layers.types.linear import TiedEmbedding
from wtdiag.trainers.layers.watch import UsesBeside
from wtdiag.trainers.rules.factored import Factored

_OURS = ("rule", "op", "place", "error_path", "second_pass", "batch_axis", "undrawn", "_compared")


def revert(model: nn.Module) -> nn.Module:
    """Return a copy of a converted model whose layers are PyTorch's own again, without feedback weights.

    It computes the same, learns by backprop and needs no wtdiag to be loaded. Forward weights, hooks of others and
    state_dict keys stay as they are. Activations that conversion kept from working in place stay so.

    Raises
    ------
    InputError
        If the model is not converted, or if its feedback weights are pruned or parametrized.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> revert(transport_free(net, "ia"))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=2, bias=True)
    )
    """
    if not any(True for _ in synapses(model)):
        raise InputError("revert: the model is not converted")
    for name, layer in synapses(model):
        factored = isinstance(layer.rule, Factored)
        if not (layer.rule.transports or factored) and layer.is_computed("feedback"):
            raise InputError(
                f"revert: the feedback of {name} is computed from other tensors; remove its pruning or "
                "parametrization first"
            )
    model = copied(model)
    for module in model.modules():
        if isinstance(module, TiedEmbedding):
            object.__delattr__(module, "layer")
            module.__class__ = nn.Embedding  # type: ignore[assignment]
    for module in list(model.modules()):
        if isinstance(module, Converted) and not isinstance(module, Matrix):
            _strip(module)
    remove_points(model)
    for hooks in (model._forward_pre_hooks, model._forward_hooks):
        for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
            del hooks[key]
    return model


def _is_ours(hook: object) -> bool:
    return isinstance(hook, UsesBeside) or isinstance(getattr(hook, "__self__", None), ErrorPath)


def _strip(module: Converted) -> None:
    if isinstance(module, Composite):
        module.close()
    for name in ("feedback", "feedback_left", "feedback_right"):
        module._parameters.pop(name, None)
    for name in _OURS:
        vars(module).pop(name, None)
    native = module.native()
    module.__class__ = rebased(type(module), native) if parametrize.is_parametrized(module) else native
