"""PyTorch's linear and convolutional layers with feedback weights of their own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.operations import Convolution, Dense, Operation
from wtdiag.trainers.layers.place import Place, traced_order
from wtdiag.trainers.layers.same_update import watch_updates
from wtdiag.trainers.layers.synapse import DirectSynapse, SharedWeight, Synapse
from wtdiag.trainers.rules import Rule
from wtdiag.trainers.rules import rule as build_rule
from wtdiag.trainers.rules.direct import Direct

if TYPE_CHECKING:
    from wtdiag.trainers.layers.error_path import ErrorPath


class Tracer(Protocol):
    """A stand-in for the synapses of a network that notes the signals that pass through them."""

    def apply(self, layer: Synaptic, x: Tensor, op: Operation) -> Tensor:
        """Run one use of a layer forward and return its output."""


class Synaptic(nn.Module):
    """Mixin of converted layers: ``feedback``, ``rule``, and a backward pass that uses them.

    It is not a layer by itself, but comes before a PyTorch layer class. ``weight``, ``bias``, hooks and state_dict keys
    of that layer stay as they are, and ``feedback`` is added, in the shape of ``weight`` (for direct rules see
    `trainers.rules.direct`).

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
    rule: Rule
    op: Operation
    place: Place
    tracer: Tracer | None = None
    batch_axis: int | None = None
    error_path: ErrorPath | None = None

    def __init__(self, *args: Any, rule: str | Rule, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attach(build_rule(rule) if isinstance(rule, str) else rule)

    def attach(self, rule: Rule, feedback: nn.Parameter | None = None, error_path: ErrorPath | None = None) -> None:
        """Give the layer its rule and feedback weights; ``feedback`` is given if it is shared with another layer."""
        self.rule, self.op, self.error_path, self.place = rule, self._operation(), error_path, Place()
        if rule.transports:
            self.feedback = self.weight
        elif feedback is not None:
            self.feedback = feedback
        elif isinstance(rule, Direct):
            self._attach_direct(rule)
        else:
            self.feedback = nn.Parameter(torch.empty_like(self.weight), requires_grad=rule.learned)
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
        return SharedWeight.apply(self.weight, self.feedback)  # type: ignore[no-any-return]

    def refresh(self) -> None:
        """Bring ``feedback`` up to date with ``weight`` if the rule ties them (sign symmetry)."""
        # .data, because the tensor that an earlier forward pass saved shall have the refreshed values too.
        self.rule.refresh(self.weight.detach(), self.feedback.data, self._std())

    def effective_feedback(self) -> Tensor:
        """Return B as the next backward pass would use it, without changing or drawing anything."""
        if self.rule.transports:
            return self.weight.detach()
        feedback = self.feedback.detach()
        if self.rule.tied:
            feedback = feedback.clone()
            self.rule.tie(self.weight.detach(), feedback)
        return feedback

    @property
    def kind(self) -> str:
        """Name of the layer type, even if a parametrization has given the layer a class of its own."""
        return next(each.__name__ for each in type(self).__mro__ if each in SYNAPTIC.values())

    def is_computed(self, name: str) -> bool:
        """Return whether "weight" or "feedback" is computed from other tensors, as by pruning and parametrizations."""
        return name not in self._parameters

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Return the parameter "weight" or "feedback", or the parameters from which it is computed."""
        made_of = (f"{name}_orig", f"{name}_g", f"{name}_v")  # the names from pruning and the older weight_norm
        return [
            p
            for key, p in self.named_parameters()
            if key == name or key in made_of or key.startswith(f"parametrizations.{name}.")
        ]

    @torch.no_grad()
    def current(self, name: str) -> Tensor:
        """Return "weight" or "feedback" as an evaluation would use it now, without changing anything.

        If it is computed, it is computed again: the last forward pass is older than the last optimiser step.
        """
        if not self.is_computed(name):
            return getattr(self, name).detach()  # type: ignore[no-any-return]
        if parametrize.is_parametrized(self, name):
            return _evaluated(self.get_submodule(f"parametrizations.{name}"))
        for hook in self._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
                return hook.apply_mask(self)  # type: ignore[no-any-return,no-untyped-call]
            if isinstance(hook, WeightNorm) and hook.name == name:
                return hook.compute_weight(self)  # type: ignore[no-any-return]
            if isinstance(hook, SpectralNorm) and hook.name == name:
                return hook.compute_weight(self, do_power_iteration=False)
        return getattr(self, name).detach()  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rule={self.rule.name}"

    @property
    def carries_error(self) -> bool:
        """Whether B sends the error to a layer below, as seen in the last pass with gradients."""
        return self.place.carries_error

    def _std(self) -> float:
        return math.sqrt(2.0 / self.op.fan_in(self.weight))

    @torch.no_grad()
    def _init_feedback(self) -> None:
        self.rule.init_feedback(self.feedback, self._std(), self.weight.detach())

    def _attach_direct(self, rule: Direct) -> None:
        if self.error_path is None:
            raise ValueError(f"{rule.name}: needs the whole network; use transport_free(model, {rule.name!r})")
        like: dict[str, Any] = {"device": self.weight.device, "dtype": self.weight.dtype}
        if isinstance(self.op, Dense):
            data = torch.empty(self.error_path.classes, self.weight.shape[1], **like)
            self.feedback = nn.Parameter(data, requires_grad=False)
            self._init_feedback()
        else:  # the size of the input map is known only after the first batch
            self.feedback = UninitializedParameter(requires_grad=False, **like)

    def _apply_synapse(self, x: Tensor, op: Operation) -> Tensor:
        place, compiling = self.place, torch.compiler.is_compiling()
        if torch.is_grad_enabled():
            place.carries_error = x.requires_grad
            if compiling:
                place.order = traced_order(place.key)
            if compiling or self.tracer is not None:  # otherwise the error will show it
                place.used = True
        if not compiling and place.order is None:
            place.ran()
        batch_axis = self.axis_of_examples(x)
        if self.error_path is not None:
            self._materialize(x, self.error_path.classes)
        elif self.tracer is None and self.rule.tied and (self.training or torch.is_grad_enabled()):
            self.refresh()  # even without gradients in training, as in a checkpoint's first pass
        if self.tracer is not None:
            return self.tracer.apply(self, x, op)
        if self.error_path is not None:
            y, silent = DirectSynapse.apply(x, self.weight, self.feedback, self.bias, op, self.rule, batch_axis)
            if torch.is_grad_enabled():
                self.error_path.silent.append(silent)
        else:
            feedback = None if self.rule.transports else self.feedback
            y = Synapse.apply(x, self.weight, feedback, self.bias, op, self.rule, batch_axis)
        if not compiling:
            place.connected(x, y)
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
        if isinstance(self.feedback, UninitializedParameter) and loaded is not None:
            self.feedback.materialize(loaded.shape)
        with self._without_unsized_feedback():
            super()._load_from_state_dict(state_dict, prefix, *args)
        self._keep_transport()

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._keep_transport()
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "forward":  # the new one may bypass the feedback
            self.place.used = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.place = self.place.for_a_copy()
        if "weight_grad" in self.rule.shares:
            watch_updates(self)

    def _keep_transport(self) -> None:
        # Loading with assign=True and to_empty() make new parameters, one for each name.
        original = self._parameters.get("weight", self._parameters.get("weight_orig"))  # "weight_orig" if it is pruned
        if self.rule.transports and original is not None:
            self.feedback = original

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        with self._without_unsized_feedback():
            super()._save_to_state_dict(destination, prefix, keep_vars)

    @contextmanager
    def _without_unsized_feedback(self) -> Iterator[None]:
        """Hide feedback that has no size before the first batch: nothing of it can be saved or loaded."""
        hidden = {}
        if isinstance(self.feedback, UninitializedParameter):
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


class Linear(Synaptic, nn.Linear):
    """`torch.nn.Linear` with feedback weights.

    Examples
    --------
    >>> layer = Linear(3, 2, rule="fa", dtype=torch.float64)
    >>> layer
    Linear(in_features=3, out_features=2, bias=True, rule=fa)
    >>> layer.feedback.shape, layer.feedback.requires_grad
    (torch.Size([2, 3]), False)
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self._apply_synapse(input, self.op)

    def _operation(self) -> Operation:
        return Dense()


class _Conv(Synaptic):
    """Convolutions of any dimension; other padding modes than zeros and uneven "same" padding are applied before.

    Such padding is a separate operation of autograd, so the padded map is the layer's input: B sends an error to the
    padding too, which autograd folds back, and the regularisers of learned rules and the feedback of direct rules see
    the padded map.
    """

    padding: str | tuple[int, ...]
    padding_mode: Any
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    _reversed_padding_repeated_twice: list[int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        x = input if input.dim() > len(self.stride) + 1 else input.unsqueeze(0)
        if self._pads_first:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        y = self._apply_synapse(x, self.op)
        return y if x.dim() == input.dim() else y.squeeze(0)

    @property
    def _pads_first(self) -> bool:
        twice = self._reversed_padding_repeated_twice
        lopsided = self.padding == "same" and twice[::2] != twice[1::2]
        return self.padding_mode != "zeros" or lopsided

    def _operation(self) -> Operation:
        padding: tuple[int, ...] = (0,) * len(self.stride)
        if not self._pads_first and self.padding != "valid":
            padding = tuple(self._reversed_padding_repeated_twice[::-2])
        return Convolution(self.stride, padding, self.dilation, groups=self.groups)


class Conv1d(_Conv, nn.Conv1d):
    """`torch.nn.Conv1d` with feedback weights."""


class Conv2d(_Conv, nn.Conv2d):
    """`torch.nn.Conv2d` with feedback weights."""


class Conv3d(_Conv, nn.Conv3d):
    """`torch.nn.Conv3d` with feedback weights."""


class _ConvTranspose(Synaptic):
    """Transposed convolutions of any dimension, ``output_size`` included."""

    padding: Any
    output_padding: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        dimensions = len(self.stride)
        x = input if input.dim() > dimensions + 1 else input.unsqueeze(0)
        op = self.op
        if output_size is not None:
            extra = self._output_padding(  # type: ignore[operator]
                input, output_size, self.stride, self.padding, self.kernel_size, dimensions, self.dilation
            )
            op = dataclasses.replace(op, output_padding=tuple(extra))  # type: ignore[type-var]
        y = self._apply_synapse(x, op)
        return y if x.dim() == input.dim() else y.squeeze(0)

    def _operation(self) -> Operation:
        return Convolution(self.stride, self.padding, self.dilation, True, tuple(self.output_padding), self.groups)


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` with feedback weights."""


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with feedback weights."""


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with feedback weights."""


class TiedEmbedding(nn.Embedding):
    """`torch.nn.Embedding` that shares W with a layer whose B takes its gradient too (Kolen-Pollack)."""

    layer: Linear

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        weight = self.layer.shared_weight()
        return F.embedding(
            input, weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    def tie(self, layer: Linear) -> None:
        """Share the weight of ``layer``, which becomes a plain attribute and not a submodule."""
        object.__setattr__(self, "layer", layer)


SYNAPTIC: dict[type[nn.Module], type[Synaptic]] = {
    base: layer
    for layer in (Linear, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
    for base in layer.__bases__
    if issubclass(base, nn.Module) and not issubclass(base, Synaptic)
}
"""PyTorch's layer types, with the type into which each is converted."""
