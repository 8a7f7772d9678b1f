"""The mixin of converted layers: feedback weights, a rule, and a backward pass that uses them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.factored_feedback import FactoredSynapse, factors_like, narrowed, product
from wtdiag.trainers.layers.operations import Operation
from wtdiag.trainers.layers.perturbed_synapse import PerturbedSynapse, SecondPass
from wtdiag.trainers.layers.place import Place, refuse_transforms, traced_order
from wtdiag.trainers.layers.same_update import watch_updates
from wtdiag.trainers.layers.synapse import DirectSynapse, SharedWeight, Synapse
from wtdiag.trainers.rules import Rule
from wtdiag.trainers.rules import rule as build_rule
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.factored import Factored
from wtdiag.trainers.rules.perturbed import Perturbed

if TYPE_CHECKING:
    from wtdiag.trainers.layers.error_path import ErrorPath


class Tracer(Protocol):
    """A stand-in for the synapses of a network that notes the signals that pass through them."""

    def apply(self, layer: Synaptic, x: Tensor, op: Operation) -> Tensor:
        """Run one use of a layer forward and return its output."""


class Converted(nn.Module):
    """Mixin of every class into which conversion turns a module; it comes before the module's own class."""

    @classmethod
    def native(cls) -> type[nn.Module]:
        """Return the class that a module had before conversion."""
        return next(each for each in cls.__mro__ if issubclass(each, nn.Module) and not issubclass(each, Converted))


class Synaptic(Converted):
    """Mixin of converted layers: ``feedback``, ``rule``, and a backward pass that uses them.

    It is not a layer by itself, but comes before a PyTorch layer class. ``weight``, ``bias``, hooks and state_dict keys
    of that layer stay as they are, and ``feedback`` is added, in the shape of ``weight`` (for direct rules see
    `trainers.rules.direct`). Under rules with two factors, ``feedback_left`` and ``feedback_right`` are the parameters,
    and ``feedback`` is their product, which is formed when it is asked for.

    Attributes
    ----------
    feedback : Parameter
        The effective B. Rules that learn it leave its local gradient in ``feedback.grad``; fixed feedback has
        ``requires_grad=False``; with ``bp`` it is ``weight`` itself.
    place : Place
        Place of the layer among the others, and what its passes have shown.
    batch_axis : int or None
        Axis that counts the examples in inputs of linear layers with more than two axes; None if it is not known.
    """

    weight: Tensor
    bias: Any  # a Tensor or None; PyTorch's own classes declare different types
    feedback: Tensor
    feedback_left: Tensor
    feedback_right: Tensor
    rule: Rule
    op: Operation
    place: Place
    tracer: Tracer | None = None
    undrawn = False  # whether B has lain on the meta device, where it has no values
    batch_axis: int | None = None
    error_path: ErrorPath | None = None
    second_pass: SecondPass | None = None

    def __init__(self, *args: Any, rule: str | Rule, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attach(build_rule(rule) if isinstance(rule, str) else rule)

    def attach(self, rule: Rule, twin: Synaptic | None = None, error_path: ErrorPath | None = None) -> None:
        """Give the layer its rule and feedback weights, those of its ``twin`` if that shares W with it."""
        self.rule, self.op, self.error_path, self.place = rule, self._operation(), error_path, Place()
        if rule.transports:
            self._keep_transport()
        elif twin is not None:
            for (_, name), parameter in zip(twin.entries_of("feedback"), twin.parameters_of("feedback"), strict=True):
                setattr(self, name, parameter)
        elif isinstance(rule, Direct):
            self._attach_direct(rule)
        elif isinstance(rule, Factored):
            self._attach_factors(rule)
        else:
            self.feedback = nn.Parameter(torch.empty_like(self.current("weight")), requires_grad=rule.learned)
            self._init_feedback()
            self.refresh()
            if "weight_grad" in rule.shares:
                watch_updates(self)

    def shared_weight(self) -> Tensor:
        """Return W for a use outside the layer, for instance in a penalty.

        Under Kolen-Pollack B receives the gradient of that use too; under other rules this is ``weight``.
        """
        both = self.weight.requires_grad and self.feedback.requires_grad
        if not both or "weight_grad" not in self.rule.shares:
            return self.weight
        learned = self.feedback_right if isinstance(self.rule, Factored) else self.feedback
        return SharedWeight.apply(self.weight, learned, self.shared_update)  # type: ignore[no-any-return]

    def shared_update(self, update: Tensor) -> Tensor:
        """Return what `learned_feedback` takes of an update of W that it shares: Pᵀ times it for a factor R."""
        if not isinstance(self.rule, Factored):
            return update
        return narrowed(self.op, self.feedback_left.detach().to(update.dtype), update)

    def refresh(self, weight: Tensor | None = None) -> None:
        """Bring ``feedback`` up to date with ``weight`` if the rule ties them (sign symmetry); W is given if known."""
        weight = self.current("weight") if weight is None else weight
        # .data, because the tensor that an earlier forward pass saved shall have the refreshed values too.
        self.rule.refresh(weight.detach(), self.feedback.data, self._std())

    def effective_feedback(self) -> Tensor:
        """Return B as the next backward pass would use it, without changing or drawing anything."""
        if self.rule.transports:
            return self.current("weight")
        feedback = self.feedback.detach()
        if self.rule.tied:
            feedback = feedback.clone()
            self.rule.tie(self.current("weight"), feedback)
        return feedback

    @property
    def learned_feedback(self) -> nn.Parameter:
        """The parameter through which B learns: B, what B is computed from, or the right one of its factors; else W."""
        return (self.parameters_of("feedback") or self.parameters_of("weight"))[-1]

    @property
    def kind(self) -> str:
        """Name of the layer type, even if a parametrization has given the layer a class of its own."""
        return self.native().__name__

    def held(self, name: str) -> tuple[nn.Module, str]:
        """Return the module that holds "weight", "bias" or "feedback", and the name that it has there."""
        return self, name

    def state_key(self, name: str, part: str) -> str:
        """Return the state_dict key of "weight" or "feedback" in a model that calls this layer ``name``."""
        module, key = self.held(part)
        prefix = name if module is self else name.rpartition(".")[0]
        return f"{prefix}.{key}" if prefix else key

    def is_computed(self, name: str) -> bool:
        """Return whether "weight" or "feedback" is computed from other tensors, as by pruning and parametrizations."""
        module, key = self.held(name)
        return key not in module._parameters

    def entries_of(self, name: str) -> list[tuple[nn.Module, str]]:
        """Return the module and the name there of "weight" or "feedback", or of each parameter behind it."""
        module, key = self.held(name)
        # The names from pruning, from the older weight_norm, and of the factors of a product.
        own = (key, f"{key}_orig", f"{key}_g", f"{key}_v", f"{key}_left", f"{key}_right")
        found = [(module, each) for each in own if module._parameters.get(each) is not None]
        if parametrize.is_parametrized(module, key):
            parts = module.get_submodule(f"parametrizations.{key}").modules()
            found += [(part, each) for part in parts for each, p in part._parameters.items() if p is not None]
        return found

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return the parameter "weight" or "feedback", or the parameters from which it is computed."""
        return [module._parameters[key] for module, key in self.entries_of(name)]  # type: ignore[misc]

    @torch.no_grad()
    def current(self, name: str) -> Tensor:
        """Return "weight" or "feedback" as an evaluation would use it now, without changing anything.

        If it is computed, it is computed again: the last forward pass is older than the last optimiser step.
        """
        module, key = self.held(name)
        if not self.is_computed(name):
            return getattr(module, key).detach()  # type: ignore[no-any-return]
        if parametrize.is_parametrized(module, key):
            return _evaluated(module.get_submodule(f"parametrizations.{key}"))
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod) and hook._tensor_name == key:
                return hook.apply_mask(module)  # type: ignore[no-any-return,no-untyped-call]
            if isinstance(hook, WeightNorm) and hook.name == key:
                return hook.compute_weight(module)  # type: ignore[no-any-return]
            if isinstance(hook, SpectralNorm) and hook.name == key:
                return hook.compute_weight(module, do_power_iteration=False)
        return getattr(module, key).detach()  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (super().extra_repr(), f"rule={self.rule.name}")))

    @property
    def carries_error(self) -> bool:
        """Whether B sends the error to a layer below, as seen in the last pass with gradients."""
        return self.place.carries_error

    def _std(self) -> float:
        return math.sqrt(2.0 / self.op.fan_in(self.feedback))

    @torch.no_grad()
    def _init_feedback(self) -> None:
        """Draw B, or its factors; on the meta device that waits until it has values."""
        self.undrawn = all(parameter.is_meta for parameter in self.parameters_of("feedback"))
        if not isinstance(self.rule, Factored):
            self.rule.init_feedback(self.feedback, self._std(), self.weight.detach())
            return
        for part in self.feedback_left.chunk(getattr(self.op, "groups", 1)):
            drawn = torch.empty_like(part, dtype=torch.promote_types(part.dtype, torch.float32))
            self.rule.init_left(drawn)  # PyTorch has no orthogonal matrices of less precision
            part.copy_(drawn)
        weight = self.current("weight")
        self.rule.init_feedback(self.feedback_right, math.sqrt(2.0 / self.op.fan_in(weight)), weight)

    def _attach_factors(self, rule: Factored) -> None:
        left, right = factors_like(self.op, self.current("weight"), rule)
        self.feedback_left = nn.Parameter(left, requires_grad=rule.learns_left)
        self.feedback_right = nn.Parameter(right)
        self._init_feedback()

    def _attach_direct(self, rule: Direct) -> None:
        if self.error_path is None:
            raise ValueError(f"{rule.name}: needs the whole network; use transport_free(model, {rule.name!r})")
        weight = self.current("weight")
        like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        if not self.op.channels_first:
            inputs = len(weight) if self.op.transposed else weight[0].numel()
            data = torch.empty(self.error_path.classes, inputs, **like)
            self.feedback = nn.Parameter(data, requires_grad=rule.learned)
            self._init_feedback()
        else:  # the size of the input map is known only after the first batch
            self.feedback = UninitializedParameter(requires_grad=rule.learned, **like)

    def _apply_synapse(self, x: Tensor, op: Operation, *, refresh: bool = True) -> Tensor:
        if x.dim() == 1:  # one example, and not as many as it has features
            return self._apply_synapse(x.unsqueeze(0), op, refresh=refresh).squeeze(0)
        place, compiling = self.place, torch.compiler.is_compiling()
        if compiling:
            if torch.compiler.is_exporting():  # which leaves the backward pass of autograd functions out
                bias = None if self.bias is None else self.bias.detach()
                return op.apply(x.detach(), self.weight.detach(), bias)
            refuse_transforms()
        if torch.is_grad_enabled():
            place.carries_error = x.requires_grad
            if compiling:
                place.order = traced_order(place.key)
            if compiling or self.tracer is not None:  # otherwise the error will show it
                place.used = True
        if not compiling and place.order is None:
            if not x.is_meta and any(p.is_meta for p in self.parameters_of("feedback")):
                raise InputError(f"{self.rule.name}: the feedback of {self} has no values; load them, or use to_empty")
            place.ran()
        batch_axis = self.axis_of_examples(x)
        if self.tracer is not None:
            if self.error_path is not None:
                self._materialize(x, self.error_path.classes)
            return self.tracer.apply(self, x, op)
        weight = self.weight  # once, because a parametrization may change its state each time that it is asked
        if self.error_path is not None:
            self._materialize(x, self.error_path.classes)
        elif refresh and self.rule.tied and (self.training or torch.is_grad_enabled()):
            self.refresh(weight)  # even without gradients in training, as in a checkpoint's first pass
        if self.error_path is not None:
            y, silent = DirectSynapse.apply(x, weight, self.feedback, self.bias, op, self.rule, batch_axis)
            if torch.is_grad_enabled():
                self.error_path.silent.append(silent)
        elif isinstance(self.rule, Perturbed):
            y = self._perturbed(x, weight, op, self.rule, batch_axis)
        elif isinstance(self.rule, Factored):
            factors = self.feedback_left, self.feedback_right
            y = FactoredSynapse.apply(x, weight, *factors, self.bias, op, self.rule, batch_axis)
        else:
            feedback = None if self.rule.transports else self.feedback
            y = Synapse.apply(x, weight, feedback, self.bias, op, self.rule, batch_axis)
        if not compiling:
            place.connected(x, y)
        return y  # type: ignore[no-any-return]

    def _perturbed(self, x: Tensor, weight: Tensor, op: Operation, rule: Perturbed, axis: int | None) -> Tensor:
        """Return the output of one use, for which noise is drawn unless it is an evaluation."""
        second = self.second_pass is not None and self.second_pass.runs
        if not (self.training or torch.is_grad_enabled() or second):
            return op.apply(x, weight, self.bias)
        noise = rule.draw(x.detach())
        if second or not rule.passes_twice:
            x = x + noise
        y, silent = PerturbedSynapse.apply(x, noise, weight, self.feedback, self.bias, op, rule, axis)
        if self.second_pass is not None and torch.is_grad_enabled():
            self.second_pass.note(silent)
        return y  # type: ignore[no-any-return]

    def axis_of_examples(self, x: Tensor) -> int | None:
        """Return the axis of the input that counts the examples, or None if it is not known.

        Raises
        ------
        InputError
            If it is not known, but the rule depends on it.
        """
        if x.dim() <= 2 or self.op.channels_first:
            return 0
        axis = self.batch_axis
        if axis is None and self.rule.counts_examples:
            raise InputError(
                f"{self.rule.name}: which axis counts the examples in a linear layer's input of shape "
                f"{tuple(x.shape)} is not known; give transport_free(..., batch_axis=…), or a sample= whose batch size "
                "differs from its other sizes"
            )
        if axis is not None and axis >= x.dim() - 1:
            raise InputError(f"batch_axis: {axis} is not an axis of examples or positions in {tuple(x.shape)}")
        return axis

    def _materialize(self, x: Tensor, classes: int) -> None:
        if isinstance(self.feedback, UninitializedParameter):
            self.feedback.materialize((classes, *x.shape[1:]))
            self._init_feedback()
        elif torch.is_grad_enabled() and self.op.channels_first and self.feedback.shape[1:] != x.shape[1:]:
            raise InputError(
                f"{self.rule.name}: the feedback of a convolution fits inputs of shape "
                f"{tuple(self.feedback.shape[1:])}, the size of the first batch; got {tuple(x.shape[1:])}"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        loaded = state_dict.get(prefix + "feedback")
        if isinstance(self._parameters.get("feedback"), UninitializedParameter) and loaded is not None:
            self.feedback.materialize(loaded.shape)  # type: ignore[attr-defined]
        with self._without_unsized_feedback():
            super()._load_from_state_dict(state_dict, prefix, *args)
        self._keep_transport()
        if self.undrawn:  # W has values now
            if not any(key.startswith(f"{prefix}feedback") for key in state_dict):
                self._draw_beside_weight()
            self.undrawn = False

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._keep_transport()
        meta = not self.rule.transports and any(p.is_meta for p in self.parameters_of("feedback"))
        if self.undrawn and not meta:  # to_empty, after which W is filled
            self._draw_beside_weight()
        self.undrawn = self.undrawn or meta
        return self

    def _draw_beside_weight(self) -> None:
        """Draw B anew, on the device of W."""
        device = self.current("weight").device
        if isinstance(self._parameters.get("feedback"), UninitializedParameter):
            like: dict[str, Any] = {"device": device, "dtype": self.feedback.dtype}
            self.feedback = UninitializedParameter(requires_grad=self.rule.learned, **like)
            return
        for (module, key), old in zip(self.entries_of("feedback"), self.parameters_of("feedback"), strict=True):
            module._parameters[key] = nn.Parameter(torch.empty_like(old, device=device), old.requires_grad)
        self._init_feedback()
        self.refresh()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "weight" and "rule" in vars(self):
            self._keep_transport()
        if name == "forward":  # the new one may bypass the feedback
            self.place.used = False

    def __getattr__(self, name: str) -> Any:
        if name == "feedback" and "rule" in vars(self) and self.rule.transports:  # of a weight that is computed
            return self.weight
        if name == "feedback" and "feedback_right" in vars(self).get("_parameters", ()):
            return product(self.op, self.feedback_left, self.feedback_right)
        return super().__getattr__(name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.place = self.place.for_a_copy()
        if "weight_grad" in self.rule.shares and not isinstance(self.rule, Factored):
            watch_updates(self)

    def _keep_transport(self) -> None:
        # Loading with assign=True and to_empty() make new parameters, one for each name.
        module, key = self.held("weight")
        original = module._parameters.get(key, module._parameters.get(f"{key}_orig"))  # the latter if it is pruned
        if self.rule.transports and original is not None:
            self._parameters["feedback"] = original

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        with self._without_unsized_feedback():
            super()._save_to_state_dict(destination, prefix, keep_vars)

    @contextmanager
    def _without_unsized_feedback(self) -> Iterator[None]:
        """Hide feedback that has no size before the first batch: nothing of it can be saved or loaded."""
        hidden = {}
        if isinstance(self._parameters.get("feedback"), UninitializedParameter):
            hidden["feedback"] = self._parameters.pop("feedback")
        try:
            yield
        finally:
            self._parameters.update(hidden)

    def _operation(self) -> Operation:
        raise NotImplementedError


def _evaluated(module: nn.Module) -> Tensor:
    """Return the output of a module without inputs in evaluation mode, in which it does not change itself."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        return module()  # type: ignore[no-any-return]
    finally:
        for each, mode in modes.items():
            each.training = mode
