"""The settings in a run's config.json: the purpose of each, and the values that it may have.

They are declared here, where torch is not needed, because readers of run directories need their roles: two runs
form a pair if they share all settings except those of the method. `trainers.config.settings.Settings` checks what
depends on the rule.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, get_args, get_type_hints

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.optimizers import OPTIMIZERS

SCHEDULES = ("cosine", "constant", "step")
Coefficient = float | str
Changes = Mapping[str, Any]
"""Some settings by name, with new values; coefficients are a mapping of those that change."""
ROLES = MappingProxyType(
    {
        "method": "which rule carries the errors, and with which coefficients",
        "feedback": "how learned feedback weights are trained; part of the method in a comparison",
        "architecture": "which network is trained",
        "data": "on which data it is trained",
        "training": "how its forward weights are trained",
        "number": "a value that changes what a step does to the weights, but hardly changes what the step costs",
        "protocol": "which repetition of the experiment it is, and on what it is tested; searches set these themselves",
        "location": "where the run is made, and by which means; it may change when the run is resumed",
        "recording": "what is kept of the run",
    }
)
"""The roles that a setting may have. Most settings have one role; some are also a number."""


def rule_name(config: Mapping[str, Any]) -> str:
    """Return the name of the rule in a run's config, "unknown" if it does not say.

    Examples
    --------
    >>> rule_name({"rule": {"name": "fa"}}), rule_name({})
    ('fa', 'unknown')
    """
    rule = config.get("rule")
    return str((rule.get("name") if isinstance(rule, dict) else rule) or "unknown")


def _setting(default: Any, description: str, **known: Any) -> Any:
    return dataclasses.field(default=default, metadata=_about(description, **known))


def _about(
    description: str,
    *,
    roles: str,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> dict[str, Any]:
    for role in roles.split():
        check_one_of("role", role, ROLES)
    bounds = {"least": least, "most": most, "below": below}
    return {"help": description, "roles": roles.split(), "choices": choices, **bounds}


@dataclass(frozen=True, kw_only=True)
class DeclaredSettings:
    """The settings of a run, each declared with its role, its help text, its choices and its bounds.

    Raises
    ------
    InputError
        If a value is of the wrong kind, out of range or not among the choices.

    Examples
    --------
    >>> DeclaredSettings(epochs=-1)
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: epochs: expected a number ≥ 0, got -1
    """

    rule: str = _setting("fa", "Rule that carries the error; `wtdiag rules` lists them.", roles="method")
    coefficients: dict[str, Coefficient] = dataclasses.field(
        default_factory=dict, metadata=_about("Coefficients or options of the rule.", roles="method number")
    )
    model: str = _setting(
        "mlp",
        "mlp, conv, transformer, lstm, resnet8/20/32/44/56/110 or any torchvision classification model.",
        roles="architecture",
    )
    depth: int | None = _setting(None, "Weight layers of the model.", roles="architecture", least=1, most=10**4)
    width: int | None = _setting(None, "Width of the model.", roles="architecture", least=1, most=2**20)
    batch_norm: bool = _setting(True, "Batch normalisation in the model.", roles="architecture")
    activation_norm: bool = _setting(
        False,
        "Bring the activations of each example, after each ReLU, to mean 0 and variance 1 over the layer's units and "
        "positions, without learned parameters; in mlp, conv and the CIFAR ResNets.",
        roles="architecture",
    )
    points: str | None = _setting(
        None,
        "Modules at whose outputs the output's error enters under dfa, drtp and dkp, by names or patterns between "
        "commas; inside them it goes on by backprop.",
        roles="method",
    )
    pretrained: str | None = _setting(
        None,
        "Weights to begin from: a file with a state dict, or default or a name of torchvision's weights for the model.",
        roles="training",
    )
    data: str = _setting("digits", "Data set; digits, glyphs, rows, copy and adding need no files.", roles="data")
    data_dir: str | None = _setting(None, "Folder of the data set's files; for npz, the file.", roles="location")
    download: bool = _setting(False, "Fetch the data set into --data-dir if it is not there.", roles="location")
    image_size: int | None = _setting(
        None, "Side of the images in pixels, where there is a choice.", roles="data", least=1, most=2**14
    )
    holdout: float = _setting(
        0.0, "Share of the training set to test on instead of the test set.", roles="protocol", least=0, below=1
    )
    epochs: float = _setting(10.0, "Passes over the training set.", roles="training", least=0, most=10**6)
    pretrain_noise: float = _setting(
        0.0,
        "Passes, before the others, over as many random inputs with random labels; for fixed feedback.",
        roles="training",
        least=0,
        most=10**6,
    )
    batch_size: int = _setting(64, "Examples per step.", roles="training", least=2, most=2**20)
    seed: int = _setting(
        0, "Seed of initial weights, data order and all noise.", roles="protocol number", least=0, most=2**63 - 1
    )
    optimizer: str = _setting("sgd", "Optimiser of the forward weights.", roles="training", choices=tuple(OPTIMIZERS))
    lr: float | None = _setting(
        None,
        "Learning rate of the forward weights; default: 0.05, and 0.2 if most weights are those of convolutions with "
        "batch norm; radam, rmsprop, adagrad and muon have defaults of their own.",
        roles="training number",
        least=0,
        most=1e38,
    )
    momentum: float = _setting(0.9, "Momentum of SGD.", roles="training number", least=0, below=1)
    nesterov: bool = _setting(False, "Nesterov's form of momentum.", roles="training number")
    weight_decay: float = _setting(
        0.0,
        "Weight decay of the forward weights; adamw and muon decouple it.",
        roles="training number",
        least=0,
        most=1e38,
    )
    schedule: str = _setting(
        "cosine", "Learning rate; step: ×0.1 at 1/3, 2/3 and 8/9.", roles="training number", choices=SCHEDULES
    )
    warmup: float = _setting(1.0, "Epochs of linear warm-up.", roles="training number", least=0, most=10**6)
    label_smoothing: float = _setting(
        0.0, "Label smoothing of the cross-entropy loss, from 0 to 1.", roles="training number", least=0, below=1
    )
    clip_norm: float | None = _setting(
        None, "Largest norm of the forward weights' gradient.", roles="training", least=0, most=1e38
    )
    feedback_optimizer: str | None = _setting(
        None,
        "Optimiser of learned feedback weights; forward: the same one as for the forward weights.",
        roles="feedback",
        choices=("forward", *OPTIMIZERS),
    )
    feedback_lr: float | None = _setting(
        None, "Learning rate of learned feedback weights.", roles="feedback number", least=0, most=1e38
    )
    feedback_momentum: float = _setting(
        0.0, "Momentum of SGD on learned feedback weights.", roles="feedback number", least=0, below=1
    )
    s_guard: bool = _setting(
        False, "Shorten the steps of a layer's feedback whose step-size number exceeds 0.4.", roles="feedback"
    )
    delay: float = _setting(
        0.0, "Epochs at the start in which only the feedback weights learn.", roles="feedback", least=0, most=10**6
    )
    alternate: int = _setting(
        0, "Task steps between two feedback steps; 0: each step is both.", roles="feedback", least=0, most=10**9
    )
    update_noise: float = _setting(
        0.0,
        "Standard deviation of Gaussian noise on updates, in units of the learning rate.",
        roles="training number",
        least=0,
        most=1e38,
    )
    relative_noise: float | None = _setting(
        None,
        "Standard deviation of Gaussian noise on updates of W and B, in units of the root mean square of W's update.",
        roles="training number",
        least=0,
        most=1e6,
    )
    noise_on: str = _setting(
        "both", "Which weights' updates are noisy.", roles="feedback number", choices=("forward", "feedback", "both")
    )
    device: str = _setting("auto", "auto, cpu, cuda or cuda:N.", roles="location")
    devices: int = _setting(
        1,
        "Processes that share each batch: one per GPU, or one per core or several if there is none.",
        roles="location",
        least=1,
        most=2**16,
    )
    max_restarts: int = _setting(
        0,
        "Times that a run on several devices goes on by itself after one is lost.",
        roles="location",
        least=0,
        most=10**4,
    )
    accumulate: int = _setting(
        1,
        "Pieces into which a device splits its part of each batch, computed in turn to save memory.",
        roles="training",
        least=1,
        most=2**20,
    )
    sync_batch_norm: bool = _setting(
        False, "Batch norm over the whole batch rather than each device's part; needs GPUs.", roles="training"
    )
    workers: int | None = _setting(
        None,
        "Processes that read images from files ahead of the training; default: one per core, at most 16.",
        roles="location",
        least=0,
        most=2**10,
    )
    compile: bool = _setting(False, "Compile the training passes by torch.compile.", roles="location")
    channels_last: bool = _setting(
        False, "Keep images and kernels with the channels last in memory, as GPUs prefer.", roles="location"
    )
    checkpoint_activations: bool = _setting(
        False, "Compute activations again in the backward pass, which saves memory in deep networks.", roles="location"
    )
    precision: str = _setting("float32", "Arithmetic.", roles="training", choices=("float32", "bfloat16", "float64"))
    snapshots: int = _setting(
        20, "Snapshots, spaced logarithmically from first to last step.", roles="recording", least=2, most=10**6
    )
    snapshot_every: int | None = _setting(
        None, "Take further snapshots at this interval, in steps.", roles="recording", least=1, most=10**12
    )
    max_gb: float | None = _setting(
        None, "Disk space for snapshots in GB; fewer are taken if necessary.", roles="recording", least=0, most=10**9
    )
    probe_size: int = _setting(
        64, "Examples in the fixed batch that the signal probes use.", roles="recording", least=2, most=2**20
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(DeclaredSettings):
            _check(field, _hints()[field.name], getattr(self, field.name))


@cache
def settings_with_role(*roles: str) -> tuple[str, ...]:
    """Return the names of the settings that have any of the roles, in the order of their declaration.

    Raises
    ------
    InputError
        If a role is not one of `ROLES`.

    Examples
    --------
    >>> settings_with_role("architecture", "data")
    ('model', 'depth', 'width', 'batch_norm', 'activation_norm', 'data', 'image_size')
    """
    for role in roles:
        check_one_of("role", role, ROLES)
    fields = dataclasses.fields(DeclaredSettings)
    return tuple(field.name for field in fields if not set(roles).isdisjoint(field.metadata["roles"]))


def command_options(settings: Changes) -> list[str]:
    """Return the words by which ``wtdiag train`` is given some settings, in the order of their declaration.

    Examples
    --------
    >>> command_options({"epochs": 10.0, "coefficients": {"decay": 0.01}, "batch_norm": False})
    ['-c', 'decay=0.01', '--no-batch-norm', '--epochs', '10']
    """
    words: list[str] = []
    for field in dataclasses.fields(DeclaredSettings):
        value, option = settings.get(field.name), field.name.replace("_", "-")
        if field.name == "coefficients":
            for name, coefficient in (value or {}).items():
                words += ["-c", f"{name}={as_typed(coefficient)}"]
        elif isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words += [f"--{option}", as_typed(value)]
    return words


def as_typed(value: object) -> str:
    """Return a setting's value as a user would type it; a number is read back as the same one.

    Examples
    --------
    >>> as_typed(10.0), as_typed(0.05), as_typed(1e-05), as_typed(64), as_typed("linear:1.0:0.5")
    ('10', '0.05', '1e-5', '64', 'linear:1.0:0.5')
    """
    if not isinstance(value, float):
        return str(value)
    return re.sub(r"e(-?)[+0]*", r"e\1", str(value).removesuffix(".0"))


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(DeclaredSettings)


def _check(field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return
    kind = kinds[0]
    if field.name == "coefficients":
        if not isinstance(value, dict):
            raise InputError(f"coefficients: expected a table of NAME = VALUE, got {value!r}")
        return
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{field.name}: expected {_NAMES[kind]}, got {value!r}")
    least, most = field.metadata["least"], field.metadata["most"]
    if most is not None and value > most:
        raise InputError(f"{field.name}: expected a number ≤ {most}, got {value!r:.60}")
    if least is not None and not (value >= least and math.isfinite(value)):
        raise InputError(f"{field.name}: expected a number ≥ {least:g}, got {value!r:.60}")
    below = field.metadata["below"]
    if below is not None and value >= below:
        raise InputError(f"{field.name}: expected a number below {below:g}, got {value!r}")
    if field.metadata["choices"]:
        check_one_of(field.name, value, field.metadata["choices"])


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
