"""The three operations of a layer type, `apply`, `adjoint` and `outer`, in which every rule is written.

=============== ============== ======================= =================================
operation       dense          convolution             meaning
=============== ============== ======================= =================================
``apply``       W x            conv(x, W)              forward
``adjoint``     Wᵀ y           transposed conv(y, W)   error path, for any W-shaped matrix
``outer``       Σ y xᵀ         weight gradient         W-shaped product, summed over batch
=============== ============== ======================= =================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.probes.errors import InputError, with_type

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Operation:
    """The operations of a layer type that rules need: W x, Wᵀ y and Σ y xᵀ for any matrix of the weight's shape.

    All three can be derived: ``apply`` from the forward method of the layer, and the others from ``apply`` by autograd.
    A subclass gives those for which it has a formula. ``apply`` has to be linear in x and in W.

    Attributes
    ----------
    layer : Module
        The layer whose operations these are, for subclasses that read its attributes.
    channels_first : bool
        Whether features are dimension 1, followed by positions, rather than the last dimension.
    transposed : bool
        Whether the first axis of W counts the inputs, and the second the outputs.
    structured : bool
        Whether the same matrix acts on every position, so that the curvature of a sum of primitives has a closed form.
    uses : int
        Number of uses of W which make up one pass, as in a sequence: each takes its part of the terms that do not
        depend on the input.
    """

    channels_first: bool = False
    transposed: bool = False
    structured: bool = False
    uses: int = 1

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + b."""
        native = self.layer.native()
        # A copy of the layer without hooks, in which W and b are plain attributes.
        layer: Any = native.__new__(native)
        nn.Module.__init__(layer)
        kept = ("_buffers", "_modules", "training")
        vars(layer).update({k: v for k, v in vars(self.layer).items() if k in kept or not hasattr(layer, k)})
        vars(layer).pop("forward", None)
        parameters = {k: p for k, p in self.layer._parameters.items() if k not in ("weight", "bias", "feedback")}
        vars(layer)["_parameters"] = parameters
        own = getattr(self.layer, "bias", None)
        vars(layer).update(weight=weight, bias=bias if bias is not None or own is None else torch.zeros_like(own))
        return layer(x)  # type: ignore[no-any-return]

    def adjoint(self, y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Return Wᵀ y in the shape of ``x``, of which only the shape is used."""
        origin = torch.zeros_like(x, dtype=y.dtype)
        return torch.func.vjp(lambda x: self.apply(x, weight), origin)[1](y)[0]  # type: ignore[no-any-return]

    def outer(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Return Σ y xᵀ in the shape of ``weight``, of which only the shape is used."""
        origin = torch.zeros_like(weight, dtype=y.dtype)
        return torch.func.vjp(lambda w: self.apply(x, w), origin)[1](y)[0]  # type: ignore[no-any-return]

    def outer_onto(self, x: Tensor, y: Tensor, matrix: Tensor, scale: float) -> Tensor | None:
        """Return Σ y xᵀ + scale · matrix if one kernel computes the sum with the product, else None."""
        return None

    def backward(self, dy: Tensor, x: Tensor, feedback: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        """Return (adjoint(dy, feedback), outer(x, dy), sum of dy), each None unless wanted."""
        features = 1 if self.channels_first else dy.dim() - 1
        return (
            self.adjoint(dy, feedback, x) if wanted[0] else None,
            self.outer(x, dy, feedback) if wanted[1] else None,
            dy.transpose(0, features).flatten(1).sum(1) if wanted[2] else None,
        )

    def errors(self, dy: Tensor, weight: Tensor) -> Tensor | None:
        """Return the errors of all outputs of W: dy, if it is known that its features are W's outputs, else None."""
        return dy if self.structured else None

    def without_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """Return W x, given W x + b."""
        if bias is None:
            return y
        return y - bias.to(y.dtype).view(-1, *((1,) * (y.dim() - 2) if self.channels_first else ()))

    @torch.no_grad()
    def compare(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """Check that the operations are those of one map, linear in x and in W.

        Raises
        ------
        InputError
            If they are not.
        """
        drawn = torch.Generator().manual_seed(0)

        def like(given: Tensor) -> Tensor:
            return torch.randn(given.shape, generator=drawn, dtype=torch.float32).to(given)

        x, weight = (each.detach() + like(each) for each in (x, weight))  # what is zero would agree with anything
        u, v = like(x), like(weight)
        try:
            y = self.apply(x, weight)
            dy = like(y)
            sizes = [
                (y * dy).sum(),
                (self.adjoint(dy, weight, x) * x).sum(),
                (self.outer(x, dy, weight) * weight).sum(),
            ]
            pairs = {
                "apply is not linear in the input": (self.apply(x + u, weight), y + self.apply(u, weight)),
                "apply is not linear in the weight": (self.apply(x, weight + v), y + self.apply(x, v)),
                "apply does not add the bias to each output": (
                    self.without_bias(self.apply(x, weight, bias), None if bias is None else bias.detach()),
                    y,
                ),
            }
        except Exception as error:  # the operations are the user's
            raise InputError(
                f"{type(self).__name__}: the operations failed on an input ({with_type(error)})"
            ) from error
        scale = y.norm() * dy.norm()
        tolerance = 10 * torch.finfo(y.dtype).eps ** 0.5
        for wrong, (one, other) in pairs.items():
            if not (one - other).norm() <= tolerance * (one.norm() + other.norm()):
                raise InputError(f"{type(self).__name__}: {wrong}")
        for name, size in zip(("adjoint", "outer"), sizes[1:], strict=True):
            if not (size - sizes[0]).abs() <= tolerance * scale:
                raise InputError(f"{type(self).__name__}: {name} is not that of apply")

    def positions(self, x: Tensor, y: Tensor) -> int:
        """Return the number of positions of one example at which the weights are used."""
        return math.prod(y.shape[2:] if self.channels_first else x.shape[1:-1])

    def fan_in(self, weight: Tensor) -> float:
        """Return the number of inputs that one output sums over."""
        return weight.numel() / weight.shape[1 if self.transposed else 0]


@dataclass(frozen=True)
class Dense(Operation):
    """Linear layers, over the last dimension of inputs with any number of leading ones.

    W is (out, in), or (in, out) if ``transposed``, and may have more axes of inputs.

    Examples
    --------
    >>> x, y, w = torch.ones(5, 2), torch.ones(5, 3), torch.ones(3, 2)
    >>> op = Dense()
    >>> op.apply(x, w).shape, op.adjoint(y, w, x).shape, op.outer(x, y, w).shape
    (torch.Size([5, 3]), torch.Size([5, 2]), torch.Size([3, 2]))
    """

    transposed: bool = False
    uses: int = 1
    structured = True

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y = F.linear(x, self._matrix(weight), bias)
        # Of more dims it is a view, which autograd lets no activation change in place.
        return y if y.dim() <= 2 else torch.ops.aten._unsafe_view.default(y, y.shape)

    def adjoint(self, y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        return y @ self._matrix(weight)

    def outer(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        x, y = _rows(x), _rows(y)
        product = x.t() @ y if self.transposed else y.t() @ x
        return product if weight.dim() == 2 else product.view(weight.shape)

    def outer_onto(self, x: Tensor, y: Tensor, matrix: Tensor, scale: float) -> Tensor | None:
        if matrix.dim() != 2 or not x.dtype == y.dtype == matrix.dtype:
            return None
        x, y = _rows(x), _rows(y)
        # Adding up in place costs the product nothing, while a sum of the two would be a pass over memory of its own.
        return (scale * matrix).addmm_(*((x.t(), y) if self.transposed else (y.t(), x)))

    def backward(self, dy: Tensor, x: Tensor, feedback: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        return (
            self.adjoint(dy, feedback, x) if wanted[0] else None,
            self.outer(x, dy, feedback) if wanted[1] else None,
            _rows(dy).sum(0) if wanted[2] else None,
        )

    def positions(self, x: Tensor, y: Tensor) -> int:
        return self.uses * math.prod(x.shape[1:-1])

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.t() if self.transposed else weight if weight.dim() == 2 else weight.flatten(1)


@dataclass(frozen=True)
class Rows(Operation):
    """A use of some rows of a matrix, of which others serve other inputs: queries, keys and values of attention.

    Examples
    --------
    >>> x, y, w = torch.ones(5, 2), torch.ones(5, 1), torch.ones(3, 2)
    >>> op = Rows(0, 1, uses=3)
    >>> op.apply(x, w).shape, op.adjoint(y, w, x).shape, op.outer(x, y, w)[:, 0]
    (torch.Size([5, 1]), torch.Size([5, 2]), tensor([5., 0., 0.]))
    """

    start: int
    stop: int
    uses: int = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight[self.start : self.stop], None if bias is None else bias[self.start : self.stop])

    def adjoint(self, y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        return y @ weight[self.start : self.stop]

    def outer(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return self._padded(_rows(y).t() @ _rows(x), weight)

    def backward(self, dy: Tensor, x: Tensor, feedback: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        dx, dw, dbias = super().backward(dy, x, feedback, wanted)
        return dx, dw, None if dbias is None else self._padded(dbias, feedback)

    def errors(self, dy: Tensor, weight: Tensor) -> Tensor:
        return F.pad(dy, (self.start, len(weight) - self.stop))

    def without_bias(self, y: Tensor, bias: Tensor | None) -> Tensor:
        return super().without_bias(y, None if bias is None else bias[self.start : self.stop])

    def _padded(self, rows: Tensor, weight: Tensor) -> Tensor:
        after = len(weight) - self.stop
        return F.pad(rows, (0, 0) * (rows.dim() - 1) + (self.start, after))


@dataclass(frozen=True)
class Convolution(Operation):
    """Convolutions and transposed convolutions in one to three dimensions, through ATen's own kernels.

    Examples
    --------
    >>> op = Convolution(stride=(2, 2), padding=(1, 1), dilation=(1, 1))
    >>> x, w = torch.ones(5, 2, 8, 8), torch.ones(3, 2, 3, 3)
    >>> y = op.apply(x, w)
    >>> y.shape, op.adjoint(y, w, x).shape, op.outer(x, y, w).shape
    (torch.Size([5, 3, 4, 4]), torch.Size([5, 2, 8, 8]), torch.Size([3, 2, 3, 3]))
    """

    channels_first = True
    structured = True

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    groups: int = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        # torch.convolution would do for every dimension, but autocast on CPUs does not know it.
        d = len(self.stride) - 1
        if self.transposed:
            transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[d]
            extra = self._output_padding
            return transposed(x, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation)
        convolve = (F.conv1d, F.conv2d, F.conv3d)[d]
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def adjoint(self, y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        dx = self.backward(y, x, weight, (True, False, False))[0]
        assert dx is not None
        return dx

    def outer(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        dw = self.backward(y, x, weight, (False, True, False))[1]
        assert dw is not None
        return dw

    def backward(self, dy: Tensor, x: Tensor, feedback: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        # One call gives both the error through the feedback weights and the true weight gradient, because the weight
        # gradient does not depend on the weights.
        gradients: Gradients = torch.ops.aten.convolution_backward.default(
            dy,
            x,
            feedback,
            [dy.shape[1]] if wanted[2] else None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self._output_padding,
            self.groups,
            wanted,
        )
        return gradients

    def positions(self, x: Tensor, y: Tensor) -> int:
        return math.prod((x if self.transposed else y).shape[2:])

    def fan_in(self, weight: Tensor) -> float:
        kernel = math.prod(weight.shape[2:])
        if self.transposed:  # only one in prod(stride) kernel entries reaches a given output position
            return max(1.0, weight.shape[0] // self.groups * kernel / math.prod(self.stride))
        return weight.shape[1] * kernel

    @property
    def _output_padding(self) -> tuple[int, ...]:
        return self.output_padding or (0,) * len(self.stride)


def _rows(x: Tensor) -> Tensor:
    """Return x as a matrix, whose rows are its vectors of features."""
    return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
