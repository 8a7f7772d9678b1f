"""The state of a model at one step, in memory. Import it through `probes.records.schema`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.netcdf import Array, Attribute

_SPACE = ("d", "h", "w")
SIGNALS = MappingProxyType(
    {
        "inputs": "the layer's input x",
        "delta": "the error that arrives at the layer's output",
        "delta_exact": "the error that arrives there under exact backpropagation",
        "sent": "the error that B sends on to the layer's input, computed from delta",
        "sent_local": "the error that W would send on, computed from delta",
        "sent_exact": "the error that W would send on, computed from delta_exact",
        "forward_projection": "W x, without the bias",
        "feedback_projection": "B x",
        "weight_gradient": "the gradient of W that delta gives, in W's shape",
        "weight_gradient_exact": "the gradient of W that delta_exact gives",
    }
)
"""Signals of a layer that a snapshot can hold; the first axis counts the examples, except in gradients."""


@dataclass(frozen=True)
class LayerArrays:
    """Forward and feedback weights of one layer at one step.

    Raises
    ------
    InputError
        If a weight does not hold real numbers in 2 to 5 dims, if the two have different shapes although the feedback is
        not direct, or if the number of groups does not divide the weight.

    Attributes
    ----------
    forward : ndarray
        W: (out, in) for Linear, (out, in / groups, [kd,] [kh,] kw) for ConvNd, (in, out / groups, ...) for
        ConvTransposeNd.
    feedback : ndarray or None
        The weights that carried the error, in W's shape; None where W itself carried it. With ``direct``, the
        (class, in[, d][, h][, w]) weights that carried the output error to the layer's input.
    kind : str
        Class name of the layer, such as ``"Conv2d"``.
    index : int
        Position in forward order.
    fixed : bool
        Whether the feedback never changes.
    carries_error : bool
        False for a first layer: no layer receives the error that its feedback would send.
    direct : bool
        Whether ``feedback`` comes straight from the output (dfa, drtp) and so has other dims than W. The feedback of
        the last layer is an ordinary (out, in) matrix, and is not direct.
    groups : int
        Number of groups of a grouped convolution.
    attrs : mapping
        Other facts, such as ``stride``.
    dtype : str
        Name of the torch dtype if NumPy has no such dtype and the arrays are a lossless float32 copy, else "".
    signals : mapping of str to ndarray
        The signals of the layer on one batch, by the names in `SIGNALS`, as far as code that is not wtdiag's gave them.
    """

    forward: Array
    feedback: Array | None
    kind: str
    index: int
    fixed: bool = False
    carries_error: bool = True
    direct: bool = False
    groups: int = 1
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    dtype: str = ""
    signals: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in (("forward", self.forward), ("feedback", self.feedback)):
            if array is not None:
                _check_weight(name, array)
        if self.feedback is not None and not self.direct and self.feedback.shape != self.forward.shape:
            shapes = f"{self.feedback.shape}, the forward weight {self.forward.shape}"
            raise InputError(f"feedback: a weight has shape {shapes}; only direct feedback may differ")
        if self.groups < 1 or self.forward.shape[0] % self.groups:
            raise InputError(f"groups: {self.groups} does not divide axis 0 of shape {self.forward.shape}")

    @property
    def transposed(self) -> bool:
        """Whether axis 0 of ``forward`` counts the inputs; ``attrs`` says it where the kind does not."""
        return bool(self.attrs.get("transposed", self.kind.startswith("ConvTranspose")))

    @property
    def channels_first(self) -> bool:
        """Whether axis 1 of a signal counts its units, and not the last; ``attrs`` says it where the kind does not."""
        return bool(self.attrs.get("channels_first", "Conv" in self.kind))

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dims of ``forward``."""
        ends = ("in", "out") if self.transposed else ("out", "in")
        return (*ends, *(f"k{axis}" for axis in _space(self.forward)))

    @property
    def feedback_dims(self) -> tuple[str, ...]:
        """Names of the dims of ``feedback``; the dims of ``forward`` unless the feedback is direct."""
        if self.feedback is None or not self.direct:
            return self.dims
        # The kernel of a grouped layer has fewer input channels than the layer's input map.
        agree = self.feedback.shape[1] == dict(zip(self.dims, self.forward.shape, strict=True))["in"]
        return ("class", "in" if agree else "input", *_space(self.feedback))


def _space(array: Array) -> tuple[str, ...]:
    return _SPACE[len(_SPACE) + 2 - array.ndim :]


def _check_weight(name: str, array: Array) -> None:
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name}: a weight has dtype {array.dtype}; expected real numbers")
    if not 2 <= array.ndim <= 2 + len(_SPACE) or not array.size:
        raise InputError(f"{name}: a weight has shape {array.shape}; expected 2 to 5 dims, none of them empty")


@dataclass(frozen=True)
class Snapshot:
    """The whole state of a model at one step; ``layers`` and ``state`` together rebuild it exactly.

    Attributes
    ----------
    step : int
        Number of training steps taken.
    layers : mapping of str to LayerArrays
        The weights of each layer by its module name; the root module, whose own name is "", is written as "model".
    state : mapping of str to ndarray
        Every other tensor of the ``state_dict`` (biases, batch-norm buffers, ...) by its key.
    dtypes : mapping of str to str
        Name of the torch dtype of each ``state`` entry for which NumPy has no dtype (it is given as a float32 copy).
    """

    step: int
    layers: Mapping[str, LayerArrays]
    state: Mapping[str, Array] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
