"""The layers of a network that other code converted: for each, its forward weights and the effective feedback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError, check_one_of, first_line, with_type
from wtdiag.probes.records.foreign import check_fit, check_names, checked_signals
from wtdiag.probes.records.netcdf import Array
from wtdiag.trainers.observe.tensors import is_recordable
from wtdiag.trainers.record import biotorch
from wtdiag.trainers.record.staging import StagedLayer, check_sizes, plain_name, unwrap

Source = str | Callable[[nn.Module], Any]
Pairs = str | Mapping[str, tuple[Source, Source]] | Callable[[nn.Module], Mapping[str, tuple[Any, Any]]]
Signals = Callable[[nn.Module], Mapping[str, Mapping[str, Any]]]

_KINDS = {2: "Linear", 3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}
_ATTRIBUTES = ("stride", "padding", "dilation", "output_padding", "padding_mode")


@dataclass
class _Pair:
    """A layer's W and B as they are now, the module that uses them, if it is known, and whether B is direct."""

    forward: Any
    feedback: Any
    module: nn.Module | None = None
    direct: bool = False


class PairReader:
    """The layers of a network by its ``pairs``, as a reader of `trainers.record.staging.Staging`.

    Parameters
    ----------
    model
        The network, on which hooks are put that see the first forward pass with gradients: it shows the order of the
        layers, and which of them send their error to a layer below.
    pairs
        The name of the attribute in which layers keep B beside their ``weight``, such as "weight_backward"; or by layer
        a pair of W and B, each the name of a parameter, buffer or attribute ("fc1.weight") or a function of the network
        that returns it; or a function of the network that returns pairs of tensors or arrays by layer. None: the
        layers of BioTorch in the network.

    Raises
    ------
    InputError
        If no layer is found, a name is not in the network, or W and B are not finite tensors of one shape.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> net.register_buffer("b", torch.ones(2, 3))
    >>> layers, tensors = PairReader(net, {"out": ("1.weight", "b")})(net)
    >>> layers["out"].facts["kind"], sorted(tensors)
    ('Linear', ['0.bias', '0.weight', '1.bias', 'out: B', 'out: W'])
    """

    def __init__(self, model: nn.Module, pairs: Pairs | None) -> None:
        if not (pairs is None or isinstance(pairs, str | Mapping) or callable(pairs)):
            raise InputError(
                f"pairs: expected an attribute's name, a mapping of layers or a function, got {type(pairs).__name__}"
            )
        self._pairs = pairs
        self._seen: dict[nn.Module, bool] = {}
        self._maps: dict[nn.Module, tuple[torch.Size, torch.Size]] = {}
        found = self._find(model)
        for name, pair in found.items():
            _check_finite(name, pair)
            if pair.module is not None:
                _Watch(pair.module, self._seen, self._maps)
        self(model)

    @property
    def ordered(self) -> bool:
        """Whether the layers come in the order in which they ran, rather than in an order that the user gave."""
        return self._pairs is None or isinstance(self._pairs, str)

    def __call__(self, model: nn.Module) -> tuple[dict[str, StagedLayer], dict[str, Tensor]]:
        """Return the layers, and all tensors of the network to copy."""
        found = self._find(model)
        if self.ordered:  # those that have not run come last
            place: dict[nn.Module | None, int] = {module: index for index, module in enumerate(self._seen)}
            found = dict(sorted(found.items(), key=lambda item: place.get(item[1].module, len(place))))
            last = next(reversed(found.values()))
            last.direct = last.direct and last.forward.shape != last.feedback.shape  # its output is the network's
        state = {plain_name(key): entry for key, entry in model.state_dict().items() if is_recordable(entry)}
        used = {each.data_ptr() for pair in found.values() for each in (pair.forward, pair.feedback) if each.numel()}
        tensors = {key: entry for key, entry in state.items() if entry.data_ptr() not in used or not entry.numel()}
        layers = {}
        for index, (name, pair) in enumerate(found.items()):
            forward, feedback = f"{name}: W", f"{name}: B"
            tensors[forward] = pair.forward
            if pair.feedback is not pair.forward:
                tensors[feedback] = pair.feedback
            layers[name] = StagedLayer(forward, feedback, self._facts(index, pair), expand=self._expand(pair))
        check_sizes(tensors)
        return layers, tensors

    def unsized(self, model: nn.Module) -> list[str]:
        """Return the layers whose whole feedback is not known yet, because it depends on the size of their input."""
        found = self._find(model)
        return [
            name
            for name, pair in found.items()
            if biotorch.spreads(pair.module, pair.feedback) and pair.module not in self._maps
        ]

    def rule(self, model: nn.Module) -> dict[str, Any]:
        """Return the entry ``rule`` of config.json if the layers are BioTorch's, empty if their rule is not known."""
        rules = {name: biotorch.rule_of(pair.module) for name, pair in self._find(model).items()}
        if not all(rules.values()):
            return {}
        names = set(rules.values())
        if len(names) == 1:
            return {"rule": {"name": names.pop()}}
        return {"rule": {"name": "mixed", "layers": {name: {"name": rule} for name, rule in rules.items()}}}

    def _find(self, model: nn.Module) -> dict[str, _Pair]:
        if isinstance(self._pairs, Mapping):
            found = {name: self._named(model, name, pair) for name, pair in self._pairs.items()}
        elif self._pairs is None or isinstance(self._pairs, str):
            found = _by_attribute(model, self._pairs or biotorch.FEEDBACK)
            if not found:
                lacks = "has no converted layer" if self._pairs is None else f"has no layer with {self._pairs!r}"
                raise InputError(
                    f"{type(model).__name__}: {lacks}; expected layers from transport_free, or pairs= that name W and B"
                )
        else:
            found = _returned(self._pairs, model)
        check_names(found)
        for name, pair in found.items():
            pair.forward, pair.feedback = (_tensor(name, *each) for each in (("W", pair.forward), ("B", pair.feedback)))
            if pair.forward.shape != pair.feedback.shape and not pair.direct:
                raise InputError(
                    f"{name}: W has shape {tuple(pair.forward.shape)} and B {tuple(pair.feedback.shape)}; expected one "
                    "shape (direct feedback from the output is recorded of BioTorch's layers only)"
                )
        return found

    def _named(self, model: nn.Module, name: str, pair: Any) -> _Pair:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"{name}: expected a pair of W and B, got {pair!r:.60}")
        forward, module = pair[0], None
        if isinstance(forward, str):
            owner = _member(model, name, forward.rpartition(".")[0])
            module = owner if isinstance(owner, nn.Module) and owner is not model else None
        w, b = (_member(model, name, each) if isinstance(each, str) else _called(name, each, model) for each in pair)
        return _Pair(w, b, module)

    def _expand(self, pair: _Pair) -> Callable[[Tensor], Tensor] | None:
        """Return the function from a kept kernel to the whole map from the output's error to a layer's input."""
        module = pair.module
        if module is None or not biotorch.spreads(module, pair.feedback):
            return None
        return lambda kernel: biotorch.spread(kernel, module, *self._maps[module])

    def _facts(self, index: int, pair: _Pair) -> dict[str, Any]:
        module = pair.module
        kind = _kind(module) or _KINDS[pair.forward.dim()]
        groups = getattr(module, "groups", 1)
        given = {name: getattr(module, name) for name in _ATTRIBUTES if isinstance(getattr(module, name, None), _PLAIN)}
        carries = True if module is None else self._seen.get(module, True)
        facts = {"kind": kind, "index": index, "carries_error": carries, "groups": groups, "attrs": given}
        return facts | ({"direct": True, "fixed": True} if pair.direct else {})


_PLAIN = (int, str, tuple)


class _Watch:
    """A hook that notes, until the first pass with gradients, the sizes of a module's input and output.

    That pass shows whether the module sends its error to one below.
    """

    def __init__(
        self, module: nn.Module, seen: dict[nn.Module, bool], maps: dict[nn.Module, tuple[torch.Size, torch.Size]]
    ) -> None:
        self._seen, self._maps = seen, maps
        self._handle = module.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            self._maps[module] = inputs[0].shape, output.shape
        if torch.is_grad_enabled():
            self._seen[module] = any(isinstance(each, Tensor) and each.requires_grad for each in inputs)
            self._handle.remove()


def signal_arrays(
    signals: Mapping[str, Any], layers: Mapping[str, StagedLayer], tensors: Mapping[str, Tensor]
) -> dict[str, dict[str, Array]]:
    """Return signals of layers as arrays, after a check.

    Raises
    ------
    InputError
        If a layer is not recorded, an array is not of real numbers, or it does not fit the layer's W.
    """
    if not isinstance(signals, Mapping):
        raise InputError(f"signals: expected a mapping of layers to arrays, got {type(signals).__name__}")
    for name in signals:
        check_one_of("signals: layer", name, layers)
    arrays = {name: checked_signals(name, of) for name, of in signals.items()}
    for name, of in arrays.items():
        if not layers[name].facts.get("direct"):
            check_fit(name, of, tensors[layers[name].forward].shape)
    return arrays


def _by_attribute(model: nn.Module, attribute: str) -> dict[str, _Pair]:
    found = {}
    for name, module in model.named_modules():
        weight, feedback = getattr(module, "weight", None), getattr(module, attribute, None)
        if isinstance(weight, Tensor) and isinstance(feedback, Tensor):
            feedback = biotorch.effective(module, weight, feedback)
            found[plain_name(name) or "model"] = _Pair(
                weight, feedback, module, biotorch.rule_of(module) == biotorch.DFA
            )
    return found


def _returned(function: Callable[[nn.Module], Any], model: nn.Module) -> dict[str, _Pair]:
    returned = _called("pairs", function, model)
    if not isinstance(returned, Mapping) or not returned:
        raise InputError(f"pairs: expected a function that returns pairs by layer, got {type(returned).__name__}")
    found = {}
    for name, pair in returned.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"{name}: expected a pair of W and B, got {type(pair).__name__}")
        found[name] = _Pair(*pair)
    return found


def _called(name: str, function: Any, model: nn.Module) -> Any:
    if not callable(function):
        raise InputError(
            f"{name}: expected the name of a tensor or a function of the network, got {type(function).__name__}"
        )
    try:
        return function(model)
    except Exception as error:  # the function is the user's
        raise InputError(f"{name}: its function failed ({with_type(error)})") from error


def _member(model: nn.Module, name: str, path: str) -> Any:
    """Return an attribute by its dotted name, as parameters are called."""
    try:
        return reduce(getattr, path.split("."), unwrap(model)) if path else unwrap(model)
    except AttributeError:
        known = [key for key, _ in unwrap(model).named_parameters()]
        check_one_of(f"{name}: tensor", path, known)
        raise  # a parameter that cannot be read


def _tensor(name: str, what: str, value: Any) -> Tensor:
    if value is None:
        raise InputError(f"{name}: has no {what}; expected a pair of W and B")
    try:
        tensor = value.detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    except Exception as error:  # whatever the conversion of a foreign object raises
        raise InputError(f"{name}: {what} cannot be read as a tensor ({first_line(error):.120})") from None
    if not is_recordable(tensor) or tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputError(f"{name}: {what} holds {str(tensor.dtype)[6:]}; expected a dense tensor of real numbers")
    if not 2 <= tensor.dim() <= max(_KINDS) or not tensor.numel():
        raise InputError(f"{name}: {what} has shape {tuple(tensor.shape)}; expected 2 to 5 axes, none of them empty")
    return tensor


def _check_finite(name: str, pair: _Pair) -> None:
    for what, tensor in (("W", pair.forward), ("B", pair.feedback)):
        if tensor.is_floating_point() and not tensor.is_meta and not bool(tensor.isfinite().all()):
            raise InputError(f"{name}: {what} is not finite before the first step; expected finite numbers")


def _kind(module: nn.Module | None) -> str:
    """Return the name of the layer of PyTorch that a module is or derives from; empty if it is none."""
    names = (each.__name__ for each in type(module).__mro__ if each.__module__.startswith("torch.nn.modules."))
    found = next(names, "")
    return found if found.startswith(("Linear", "Conv")) else ""
