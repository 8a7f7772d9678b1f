"""Modules with several weight matrices: each matrix is a layer of its own inside the module that it belongs to."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wtdiag.trainers.layers.operations import Dense, Operation
from wtdiag.trainers.layers.synaptic import Converted, Synaptic


class Matrix(Synaptic):
    """One weight matrix of a module that has several, such as ``attn.in_proj``.

    W and the bias stay parameters of that module, under their names there; the feedback belongs to this layer. So it
    has its own rule, place, signals and label, and a state_dict key such as ``attn.in_proj.feedback``.

    Attributes
    ----------
    owner : Module
        The module that holds W; not a submodule of this one.
    names : dict
        Names of "weight" and, if there is one, "bias" in the owner.
    """

    owner: nn.Module
    names: dict[str, str]

    def __init__(self, owner: nn.Module, weight: str, bias: str | None) -> None:
        nn.Module.__init__(self)
        self.own(owner)
        self.names = {"weight": weight} | ({} if bias is None else {"bias": bias})

    def own(self, owner: nn.Module) -> None:
        """Make a module the owner of this matrix."""
        vars(self)["owner"] = owner  # and not a submodule

    def forward(self, x: Tensor, op: Operation | None = None, *, refresh: bool = True) -> Tensor:
        return self._apply_synapse(x, op or self.op, refresh=refresh)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W, as the owner has it."""
        return getattr(self.owner, self.names["weight"])  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        """The bias, as the owner has it."""
        return getattr(self.owner, self.names["bias"]) if "bias" in self.names else None

    @property
    def kind(self) -> str:
        return self.owner.native().__name__ if isinstance(self.owner, Converted) else type(self.owner).__name__

    def held(self, name: str) -> tuple[nn.Module, str]:
        return (self, name) if name == "feedback" else (self.owner, self.names[name])

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self.current('weight').shape))}, rule={self.rule.name}"

    def _keep_transport(self) -> None:
        """Register nothing: under backprop the owner's W is the feedback."""

    def _operation(self) -> Operation:
        return Dense()


class Composite(Converted):
    """Mixin of converted modules that use their weights themselves; ``matrices`` says which become layers."""

    @classmethod
    def matrices(cls, module: Any) -> dict[str, tuple[str, str | None]]:
        """Return the name of each matrix's layer, with the names of its weight and its bias in the module."""
        return {}

    @classmethod
    def obstacle(cls, module: Any) -> str | None:
        """Return why a module of the native class cannot be converted, or None."""
        return None

    def open(self) -> None:
        """Give each matrix a layer."""
        for label, (weight, bias) in self.matrices(self).items():
            matrix = Matrix(self, weight, bias)
            matrix.batch_axis = self.axis_of_examples
            self.add_module(label, matrix)

    @property
    def axis_of_examples(self) -> int | None:
        """Axis that counts the examples in what the matrices see, as far as the module itself says it."""
        return None if (first := getattr(self, "batch_first", None)) is None else 1 - int(first)

    def close(self) -> None:
        """Remove the layers of the matrices."""
        for label in self.matrices(self):
            del self._modules[label]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for matrix in self._modules.values():
            if isinstance(matrix, Matrix) and matrix.owner is not self:  # a replica, as DataParallel makes it
                matrix.own(self)
        return super().__call__(*args, **kwargs)
