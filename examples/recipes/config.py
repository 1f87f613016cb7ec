"""The settings of a training, as a file and as a command line.

The file is YAML. Without PyYAML it is written and read as JSON, which every reader of YAML reads.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.tools import write_whole

try:
    import yaml
except ImportError:
    yaml = None

CHOICES = {
    "schedule": ("steps", "cosine"),
    "augment": ("auto", "pad-crop", "none"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "xla": ("auto", "on", "off"),
    "distribution": ("none", "mirrored", "multi-worker", "data-parallel"),
}
# The smallest value that a number may have, and whether that value itself is allowed.
BOUNDS: dict[str, tuple[float, bool]] = {
    "samples": (1, True),
    "epochs": (1, True),
    "batch_size": (1, True),
    "learning_rate": (0, False),
    "momentum": (0, True),
    "warmup": (0, True),
    "weight_decay": (0, True),
    "image_size": (1, True),
    "seed": (0, True),
    "validate_every": (1, True),
    "fgsm_epsilon": (0, False),
    "pgd_epsilon": (0, False),
    "pgd_steps": (1, True),
    "attacked": (1, True),
}


def _setting(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Config:
    """The settings of a training; each is an option of train.py and a key of the file.

    Raises:
        ValueError: A value has the wrong type or is out of its range.
    """

    data: str = _setting("digits", "digits, a file FILE.npz, or the name of a TFDS set")
    samples: int | None = _setting(None, "at most so many training images")
    image_size: int = _setting(224, "height and width of images whose sizes differ")
    network: str = _setting("resnet8", "name of the network")
    methods: tuple[str, ...] = _setting((), "methods with their settings")
    penalties: tuple[str, ...] = _setting((), "penalties with their settings")
    epochs: int = _setting(20, "passes over the training images")
    batch_size: int = _setting(256, "images in a step, on all devices together")
    learning_rate: float = _setting(0.1, "the largest learning rate")
    momentum: float = _setting(0.9, "momentum of SGD")
    schedule: str = _setting("steps", "a tenth after 30, 60 and 90 %% of the epochs, or a cosine")
    warmup: float = _setting(0.0, "epochs in which the learning rate rises to its largest")
    weight_decay: float = _setting(1e-4, "decay of the kernels; biases have none")
    shifted_l2: bool = _setting(True, "whether normalised kernels get shifted L2 instead of L2")
    augment: str = _setting(
        "auto", "pad-crop: crops of padded images and flips; auto: not for digits"
    )
    precision: str = _setting("float32", "dtype policy of Keras")
    xla: str = _setting("auto", "whether XLA compiles the steps")
    distribution: str = _setting("none", "how several devices share the work")
    seed: int = _setting(0, "seed of everything random")
    monitor_gbr: bool = _setting(False, "whether to measure the GBR after each epoch")
    validate_every: int = _setting(1, "epochs between two evaluations on the test images")
    fgsm_epsilon: float | None = _setting(
        None, "largest change of a pixel by FGSM; by default 0.125 for digits, 8/255 for others"
    )
    pgd_epsilon: float | None = _setting(
        None, "the same by PGD; by default 0.125 for digits, 2/255 for others"
    )
    pgd_steps: int = _setting(20, "steps of PGD")
    attacked: int = _setting(1000, "test images that are attacked")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
            _check(field, getattr(self, field.name))

    @property
    def attack_strengths(self) -> tuple[float, float]:
        """The largest change of a pixel by FGSM and by PGD; pixels are in [0, 1]."""
        fgsm, pgd = (0.125, 0.125) if self.data == "digits" else (8 / 255, 2 / 255)
        return self.fgsm_epsilon or fgsm, self.pgd_epsilon or pgd

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        values = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _check(field: dataclasses.Field, value: Any) -> None:
    name, default = field.name, field.default
    if value is None and "None" in str(field.type):
        return
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"{name} must be one of {', '.join(CHOICES[name])}. Received: {value!r}")
    if isinstance(default, tuple):
        if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
            raise ValueError(f"{name} must be a list of texts. Received: {value!r}")
    elif isinstance(default, (bool, str)):
        if not isinstance(value, type(default)):
            expected = "true or false" if isinstance(default, bool) else "a text"
            raise ValueError(f"{name} must be {expected}. Received: {value!r}")
    elif name in BOUNDS:
        _check_number(name, value, is_integer="int" in str(field.type))


def _check_number(name: str, value: Any, is_integer: bool) -> None:
    bound, inclusive = BOUNDS[name]
    kinds = int if is_integer else (int, float)
    in_range = isinstance(value, kinds) and not isinstance(value, bool)
    in_range = in_range and (value > bound or (inclusive and value == bound))
    if not in_range or value == float("inf"):
        kind = "a whole number" if is_integer else "a number"
        raise ValueError(
            f"{name} must be {kind} {'>=' if inclusive else '>'} {bound}. Received: {value!r}"
        )


def write(config: Config, path: Path) -> None:
    """Writes the file that `read` reads."""
    values = config.as_dict()
    text = yaml.safe_dump(values, sort_keys=False) if yaml else json.dumps(values, indent=2) + "\n"
    write_whole(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def read(path: Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
        ValueError: The file is not there, or it does not hold settings by name.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text) if yaml else json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Cannot read {path}: {error}") from None
    except json.JSONDecodeError:
        raise ValueError(f"Reading {path} needs PyYAML: pip install pyyaml") from None
    except Exception as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    names = [field.name for field in dataclasses.fields(Config)]
    if not isinstance(values, dict) or not set(values) <= set(names):
        unknown = sorted(set(values) - set(names)) if isinstance(values, dict) else values
        raise ValueError(f"{path} must have keys out of {', '.join(names)}. Received: {unknown}")
    return {name: _number(value) if name in BOUNDS else value for name, value in values.items()}


def _number(value: Any) -> Any:
    """What a number means: readers of YAML 1.1 take 1e-4, without a point, for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each setting. What is not given is absent from the result."""
    for field in dataclasses.fields(Config):
        if field.name in ("methods", "penalties"):
            continue
        flag = "--" + field.name.replace("_", "-")
        shown = "" if field.default is None else f" (default: {field.default})"
        how: dict[str, Any] = {"help": field.metadata["help"] + shown}
        if isinstance(field.default, bool):
            how["action"] = argparse.BooleanOptionalAction
            how["help"] = field.metadata["help"]
        elif field.name in CHOICES:
            how["choices"] = CHOICES[field.name]
        else:
            how["type"] = _type_of(field)
            how["metavar"] = field.name.upper()
        parser.add_argument(flag, dest=field.name, default=argparse.SUPPRESS, **how)
    parser.add_argument(
        "--method",
        dest="methods",
        action=_Listed,
        default=argparse.SUPPRESS,
        metavar="NAME[:KEY=VALUE,...]",
        help="a method; may be given several times",
    )
    parser.add_argument(
        "--set",
        dest="methods",
        action=_SetOfLast,
        default=argparse.SUPPRESS,
        metavar="KEY=VALUE",
        help="a setting of the method before it",
    )
    parser.add_argument(
        "--penalty",
        dest="penalties",
        action=_Listed,
        default=argparse.SUPPRESS,
        metavar="NAME:WEIGHT[,KEY=VALUE,...]",
        help="a penalty; may be given several times",
    )


def _type_of(field: dataclasses.Field) -> Any:
    for kind in (int, float):
        if kind.__name__ in str(field.type):
            return kind
    return str


class _Listed(argparse.Action):
    """Appends to a list that the command line begins anew."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, [*getattr(namespace, self.dest, []), values])


class _SetOfLast(argparse.Action):
    """Adds a setting to the last method."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        methods = getattr(namespace, self.dest, [])
        if not methods:
            parser.error("argument --set: must stand behind the --method that it belongs to")
        *others, last = methods
        separator = "," if ":" in last else ":"
        setattr(namespace, self.dest, [*others, f"{last}{separator}{values}"])


def from_options(options: argparse.Namespace, file: Path | None) -> Config:
    """The settings of the file, changed by those of the command line.

    Raises:
        ValueError: The file cannot be read, or a value is wrong.
    """
    given = {name: v for name, v in vars(options).items() if name in _names()}
    return Config(**{**(read(file) if file else {}), **given})


def _names() -> Sequence[str]:
    return [field.name for field in dataclasses.fields(Config)]
