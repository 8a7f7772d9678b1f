"""The conversion of any module into a copy whose layers learn by a rule."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

from wtdiag.probes.errors import InputError, one_line, with_type
from wtdiag.trainers.layers.batch_axis import batch_axis_of, count_examples
from wtdiag.trainers.layers.conversions import converted_class, known_types, rebased
from wtdiag.trainers.layers.direct_points import FEEDBACK, add_point, chosen, points_of
from wtdiag.trainers.layers.error_path import ErrorPath
from wtdiag.trainers.layers.matrices import Composite
from wtdiag.trainers.layers.perturbed_synapse import SecondPass
from wtdiag.trainers.layers.synaptic import Converted, Synaptic
from wtdiag.trainers.layers.types.linear import TiedEmbedding
from wtdiag.trainers.layers.watch import watch
from wtdiag.trainers.rules import Rule
from wtdiag.trainers.rules import rule as build_rule
from wtdiag.trainers.rules.direct import Direct


def transport_free(
    model: nn.Module,
    rule: str | Rule,
    *,
    sample: Tensor | Mapping[str, Tensor] | None = None,
    classes: int | None = None,
    batch_axis: int | None = None,
    points: str | Sequence[str] | None = None,
    **coefficients: Any,
) -> nn.Module:
    """Return a copy of ``model`` whose layers learn by ``rule``.

    Weights, hooks, state_dict keys and sharing of modules stay as they are; each converted layer gains ``feedback``.
    Attention, recurrent networks and torchvision's Swin are converted matrix by matrix, and a layer type of your own
    joins by `converts`. Batch norm, biases and everything else keep true backprop, as in the published work; so does a
    weight where the model uses it without calling its layer, which a warning names in the first pass.
    `summary` lists what was converted and what was not.

    Parameters
    ----------
    model
        Any module; it is not changed.
    rule
        A name from ``wtdiag.RULES`` or a rule object.
    sample
        A batch of inputs, a tensor or tensors by the names under which the network takes them, which is passed through
        the network once. The order of the layers, which of them send the
        error down, and the sizes and axes that ``dfa`` and ``drtp`` need are then known at once instead of after the
        first batch.
    classes
        Width of the network's output, for ``dfa`` and ``drtp``. By default that of the output for ``sample``, or
        without one that of the last converted layer.
    batch_axis
        Axis that counts the examples in inputs of linear layers with more than two axes: 0 for (batch, sequence,
        feature), 1 for (sequence, batch, feature). ``dfa``, ``drtp`` and ``reduction="sum"`` need it. By default it is
        found from ``sample``, by the number of examples in the network's output (batch, classes).
    points
        For ``dfa``, ``drtp`` and ``dkp``, with a ``sample``: names of modules, or patterns such as
        ``"encoder.layers.*"``, at whose outputs the output's error enters, as Bᵀ e in place of the error from above.
        Inside a module it goes on by backprop (Launay et al. 2020, arXiv:2006.12878). By default it enters at the input
        of every layer.
    **coefficients
        Coefficients of the rule, if ``rule`` is a name.

    Raises
    ------
    InputError
        If the rule or a coefficient is unknown, no layer can be converted, the model is converted already, or
        ``points`` name no module.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> twin = transport_free(net, "kp", decay=0.01)
    >>> twin(torch.ones(5, 4)).sum().backward()
    >>> twin[2].feedback.grad.shape == twin[2].weight.shape
    True
    """
    if isinstance(rule, str):
        rule = build_rule(rule, **coefficients)
    elif not isinstance(rule, Rule):
        raise InputError(f"transport_free: rule must be a name or a Rule object, got {rule!r}")
    elif coefficients:
        raise InputError(f"transport_free: coefficients {', '.join(coefficients)} need the rule's name, not {rule!r}")
    if not isinstance(model, nn.Module):
        raise InputError(f"transport_free: model must be a torch.nn.Module, got {type(model).__name__}")
    if any(isinstance(module, Synaptic) for module in model.modules()):
        raise InputError("transport_free: the model is converted already; convert the original")
    if classes is not None and (not isinstance(classes, int) or classes < 1):
        raise InputError(f"transport_free: classes must be a positive whole number, got {classes!r}")
    if batch_axis is not None and (isinstance(batch_axis, bool) or not isinstance(batch_axis, int) or batch_axis < 0):
        raise InputError(f"transport_free: batch_axis must be a whole number from 0 on, got {batch_axis!r}")
    tensors = list(sample.values()) if isinstance(sample, Mapping) else [sample]
    if sample is not None and not (tensors and all(isinstance(each, Tensor) for each in tensors)):
        raise InputError(f"transport_free: sample must be a batch of inputs, got {type(sample).__name__}")
    if points is not None and (not isinstance(rule, Direct) or sample is None):
        why = "needs sample=" if sample is None else f"{rule.name} does not project the output's error"
        raise InputError(f"transport_free: points: {why}")
    try:
        model = copied(model)
    except RuntimeError as error:  # a computed tensor among its attributes, as torch.nn.utils.weight_norm leaves
        raise InputError(f"transport_free: {type(model).__name__} cannot be copied: {one_line(error)}") from error
    for module in [module for module in model.modules() if _reason_to_skip(module, rule) is None]:
        _change_class(module)
    layers = [layer for _, layer in synapses(model)]
    if not layers:
        skipped = [f"{each.name}: {each.reason}" for each in summary(model).skipped]
        raise InputError(
            f"transport_free: {type(model).__name__} has no layer to convert; known: "
            + ", ".join(known_types())
            + "".join(f"; {reason}" for reason in skipped[:3])
        )
    axes: dict[Synaptic, int | None] = dict.fromkeys(layers, batch_axis)
    modules = chosen(model, [points] if isinstance(points, str) else points) if points is not None else {}
    if sample is not None and rule.counts_examples:
        for layer in layers:
            layer.attach(build_rule("bp"))
        output, shapes, outputs = _seen(model, layers, modules, sample)
        if batch_axis is None:
            axes |= {layer: batch_axis_of(shape, count_examples(output)) for layer, shape in shapes.items()}
        if isinstance(rule, Direct) and classes is None:
            classes = _width(output)
    error_path = None
    if isinstance(rule, Direct):
        error_path = ErrorPath(rule, classes or _outputs(layers[-1]))
        error_path.attach(model)
    if error_path is not None and modules:
        examples = count_examples(output)
        for name, module in modules.items():
            add_point(name, module, outputs, error_path, (batch_axis, examples), maps=_returns_maps(module))
        rule, error_path = build_rule("bp"), None
    tied: dict[Tensor, Synaptic] = {}
    for layer in layers:
        if axes[layer] is not None:
            layer.batch_axis = axes[layer]
        shared = None if layer.is_computed("weight") else layer.weight
        layer.attach(rule, None if error_path or shared is None else tied.get(shared), error_path)
        if shared is not None:
            tied[shared] = layer
    if "weight_grad" in rule.shares:
        _share_gradients(model)
    if rule.passes_twice:
        second_pass = SecondPass(rule)
        second_pass.attach(model)
        for layer in layers:
            layer.second_pass = second_pass
    _protect_outputs(model, rule)
    if sample is not None:
        _run(model, sample)
    for _, synapse in synapses(model):
        synapse.place.used = False  # only training counts as use, and not the sample
    watch(model)
    return model


def copied(model: nn.Module, known: Mapping[int, Any] | None = None) -> nn.Module:
    """Return a deep copy of ``model``; ``known`` holds copies that exist already, by the id of the original."""
    # deepcopy refuses buffers that are not dense, and weights that were computed in the last forward pass, by pruning
    # or the older weight norm; the next pass computes these again.
    clones = {id(buffer): buffer.clone() for buffer in model.buffers() if not is_dense(buffer)}
    clones |= {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in tree_leaves(list(vars(module).values()))
        if isinstance(value, Tensor) and not value.is_leaf
    }
    twin = copy.deepcopy(model, {**(known or {}), **clones})
    for parameter in twin.parameters():
        if not parameter.is_leaf:  # as copies of what torch.jit.script made have them
            parameter.detach_().requires_grad_()
    return twin


def synapses(model: nn.Module) -> Iterator[tuple[str, Synaptic]]:
    """Yield (name, layer) of each converted layer once, in order of registration; a bare layer is named "model".

    Raises
    ------
    InputError
        If the model is not a module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, Synaptic):
            yield name or "model", module


def learners(model: nn.Module) -> list[tuple[str, Synaptic | ErrorPath]]:
    """Return, by name, what holds the rule by which a model learns: its points if it has any, else its layers."""
    return [(point.name, point.path) for _, point in points_of(model)] or list(synapses(model))


def feedback_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the feedback weights of ``model``, fixed ones included, by their names in ``named_parameters``.

    The feedback weights of backprop are the forward weights, so they are not included.

    Examples
    --------
    >>> net = transport_free(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), "kp")
    >>> feedback = feedback_parameters(net)
    >>> list(feedback)
    ['0.feedback', '2.feedback']
    >>> [name for name, _ in net.named_parameters() if name not in feedback]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    own = {id(p) for _, layer in synapses(model) if not layer.rule.transports for p in layer.parameters_of("feedback")}
    own |= {id(module._parameters[FEEDBACK]) for module, _ in points_of(model)}
    return {name: p for name, p in model.named_parameters() if id(p) in own}


def set_rule(model: nn.Module, rule: Rule) -> None:
    """Give every converted layer the same rule with other coefficients, as a schedule does; B stays as it is."""
    for _, learner in learners(model):
        if type(learner.rule) is not type(rule):
            raise InputError(
                f"set_rule: the model learns by {learner.rule.name}, not {rule.name}; convert the original"
            )
        learner.rule = rule
    _protect_outputs(model, rule)


@dataclass(frozen=True)
class Skipped:
    """A module that holds weights and keeps true backprop, with the reason."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Conversion:
    """The result of `transport_free` for a model, layer by layer; it prints as a table."""

    rule: str
    converted: list[tuple[str, str, tuple[int, ...]]]
    skipped: list[Skipped]
    points: list[tuple[str, str, tuple[int, ...]]] = dataclasses.field(default_factory=list)
    """Modules at whose outputs the output's error enters, with the shapes of B; between them layers use backprop."""

    def __str__(self) -> str:
        lines = []
        if self.points:
            lines = [f"The output's error enters by {self.rule} at the outputs of:"]
            lines += [f"  {name:<32} {kind:<16} {'×'.join(map(str, shape))}" for name, kind, shape in self.points]
        learn = "layer learns" if len(self.converted) == 1 else "layers learn"
        lines += [f"{len(self.converted)} {learn} by {'backprop from there' if self.points else self.rule}:"]
        lines += [f"  {name:<32} {kind:<16} {'×'.join(map(str, shape))}" for name, kind, shape in self.converted]
        if self.skipped:
            keep = "module with weights keeps" if len(self.skipped) == 1 else "modules with weights keep"
            lines.append(f"{len(self.skipped)} {keep} true backprop:")
            lines += [f"  {row.name:<32} {row.kind:<16} {row.reason}" for row in self.skipped]
        return "\n".join(lines)


def summary(model: nn.Module) -> Conversion:
    """Return what was converted in ``model``, and what was skipped and why.

    Examples
    --------
    >>> net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    >>> print(summary(transport_free(net, "fa")))
    1 layer learns by fa:
      1                                Linear           2×4
    1 module with weights keeps true backprop:
      0                                Embedding        no feedback form for this type
    """
    converted, skipped = [], []
    rule = next((layer.rule for _, layer in synapses(model)), None)
    for name, module in model.named_modules():
        if isinstance(module, Composite):
            continue  # its matrices are layers of their own
        if isinstance(module, Synaptic):
            if reason := _reason_it_keeps_backprop(module):
                skipped.append(Skipped(name or "model", module.kind, reason))
            else:
                converted.append((name or "model", module.kind, tuple(module.current("weight").shape)))
                if module.place.beside:
                    reason = "only where the model uses its weight without calling it"
                    skipped.append(Skipped(name or "model", module.kind, reason))
        elif _has_matrix(module):
            reason = _reason_to_skip(module, rule) or (
                "it was not there, or had no size yet, when the network was converted"
                if rule
                else "it is not converted"
            )
            skipped.append(Skipped(name or "model", type(module).__name__, reason))
    points = [
        (point.name, type(each).__name__, tuple(getattr(each, FEEDBACK).shape)) for each, point in points_of(model)
    ]
    names = {learner.rule.name for _, learner in learners(model)}
    return Conversion(", ".join(sorted(names)) or "nothing", converted, skipped, points)


def converted_share(model: nn.Module) -> float:
    """Return the share of the entries of all weight matrices and kernels whose layer sends its error through B.

    Every parameter with two or more axes counts as one, and once if it is shared; feedback weights do not count. A
    layer that keeps backprop, as `summary` lists it, does not send its error through B. Under ``bp``, B is the weight;
    so it is between the ``points`` of direct feedback.

    Examples
    --------
    >>> net = transport_free(nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 2)), "fa")
    >>> converted_share(net)
    0.25
    """
    layers = [layer for _, layer in synapses(model)]
    weights = {
        id(weight)
        for layer in layers
        if _reason_it_keeps_backprop(layer) is None
        for weight in layer.parameters_of("weight")
    }
    feedback = {id(p) for p in feedback_parameters(model).values()}
    sizes = {id(p): p.numel() for p in model.parameters() if not is_lazy(p) and p.dim() > 1 and id(p) not in feedback}
    every = sum(sizes.values())
    return sum(size for each, size in sizes.items() if each in weights) / every if every else 0.0


def _has_matrix(module: nn.Module) -> bool:
    if isinstance(module, parametrize.ParametrizationList):  # it is listed with the module that it belongs to
        return False
    own = [p for name, p in module.named_parameters(recurse=False) if name != FEEDBACK]
    return parametrize.is_parametrized(module) or any(is_lazy(p) or p.dim() > 1 for p in own)


def _reason_to_skip(module: nn.Module, rule: Rule | None) -> str | None:
    """Return why a module is not converted, or None if it will be."""
    computed = parametrize.is_parametrized(module)
    kind = type(module).__bases__[0] if computed else type(module)
    cls = None if isinstance(module, Converted) else converted_class(kind)
    if any(is_lazy(p) for p in module.parameters(recurse=False)):
        return "lazy: run one batch before converting"
    if cls is None:
        native = next((base for base in kind.__mro__[1:] if converted_class(base)), None)
        if native is not None:
            return f"a subclass of {native.__name__} may compute in its own way"
        if computed:
            return "its weight is computed from others (parametrization), and its type has no feedback form"
        return "no feedback form for this type"
    if "forward" in vars(module):
        return "its forward is set on the instance, and may compute in its own way"
    if issubclass(cls, Composite):
        if obstacle := cls.obstacle(module):
            return obstacle
        names = [weight for weight, _ in cls.matrices(module).values()]
    else:
        names = ["weight"]
    return next((reason for name in names if (reason := _reason_to_keep(module, name, rule))), None)


def _reason_to_keep(module: nn.Module, name: str, rule: Rule | None) -> str | None:
    """Return why a weight of a module cannot have feedback, or None if it can."""
    weight = module._parameters.get(name)
    if weight is None:
        if not (parametrize.is_parametrized(module, name) or isinstance(vars(module).get(name), Tensor)):
            return f"it has no {name}"
        if rule is not None and "weight_grad" in rule.shares:
            return "its weight is computed from others, so B cannot take W's updates"
        parameters = [p for key, p in module.named_parameters() if name in key]
        weight = parameters[0] if parameters else None
    if weight is None or not is_dense(weight):
        return "its weight is not a dense tensor"
    if not weight.is_floating_point():
        return "its weight is not real floating point"
    if weight.numel() == 0:
        return "its weight is empty"
    return None


def _change_class(module: nn.Module) -> None:
    """Turn a module into its converted class, and the matrices of a composite one into layers."""
    if parametrize.is_parametrized(module):
        cls = converted_class(type(module).__bases__[0])
        assert cls is not None
        module.__class__ = rebased(type(module), cls)
    elif cls := converted_class(type(module)):
        module.__class__ = cls
    if isinstance(module, Composite):
        module.open()


def _reason_it_keeps_backprop(layer: Synaptic) -> str | None:
    """Return why a converted layer keeps backprop, as far as its passes have shown, or None if it does not."""
    if layer.rule.transports:
        return None
    if layer.place.bypassed:
        return "the model bypasses its feedback: its weight received a gradient, and the feedback was not used"
    if "forward" in vars(layer) and not layer.place.used:
        return "its forward is set on the instance, and has not used the feedback so far"
    return None


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor is dense: not sparse, nested or quantized."""
    return tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_quantized)


def _outputs(layer: Synaptic) -> int:
    features = getattr(layer, "out_features", None) or getattr(layer, "out_channels", None)
    return int(features or layer.current("weight").shape[1 if layer._operation().transposed else 0])


def _share_gradients(model: nn.Module) -> None:
    """Let B take the gradients of other modules that share a weight with its layer, or refuse such modules."""
    layers = {layer.weight: layer for _, layer in synapses(model)}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            layer = layers.get(parameter)
            if layer is None or isinstance(module, Converted):
                continue
            if not (type(module) is nn.Embedding and module.max_norm is None):
                raise InputError(
                    f"transport_free: {layer.rule.name}: {name} ({type(module).__name__}) uses the weight of {layer}, "
                    "and B would not take its share of W's gradient; untie them, or convert by another rule"
                )
            module.__class__ = TiedEmbedding
            module.tie(layer)  # type: ignore[operator]


def _protect_outputs(model: nn.Module, rule: Rule) -> None:
    """Keep activations from overwriting layer outputs in place if B learns from them."""
    for module in model.modules() if "output" in rule.shares else ():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _run(model: nn.Module, sample: Tensor | Mapping[str, Tensor]) -> Any:
    """Run the network once in evaluation mode, and change nothing except the places that its layers note."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            return model(**sample) if isinstance(sample, Mapping) else model(sample)
    except InputError:
        raise
    except Exception as error:  # whatever the network raises for inputs of another shape or kind
        raise InputError(f"transport_free: sample: the network cannot take it ({with_type(error)})") from error
    finally:
        for module, mode in training.items():
            module.training = mode


def _seen(
    model: nn.Module, layers: list[Synaptic], modules: Mapping[str, nn.Module], sample: Any
) -> tuple[Any, dict[Synaptic, torch.Size], dict[str, Any]]:
    """Run the network once; return its output, the shape of each layer's last input, and what ``modules`` returned."""
    shapes: dict[Synaptic, torch.Size] = {}
    outputs: dict[str, Any] = {}

    def note(layer: Synaptic, inputs: tuple[Tensor, ...]) -> None:
        shapes[layer] = inputs[0].shape

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    for name, module in modules.items():
        hooks.append(module.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output})))
    try:
        return _run(model, sample), shapes, outputs
    finally:
        for hook in hooks:
            hook.remove()


def _returns_maps(module: nn.Module) -> bool:
    """Return whether the last converted layer of a module works on maps, (batch, channels, ...)."""
    last = [layer for layer in module.modules() if isinstance(layer, Synaptic)][-1:]
    return bool(last) and last[0].op.channels_first


def _width(output: Any) -> int:
    """Return the width of the network's output, whose error is projected by direct rules."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor) and leaf.dim() == 2:
            return leaf.shape[1]
    raise InputError("transport_free: no output of the network has the shape (batch, classes); give classes=")
