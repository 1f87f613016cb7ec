"""The methods and penalties by name. A new one is one function here."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

import keras_gbr as gbr

# The name of the classifier.
HEAD = "logits"


@dataclass(frozen=True)
class Parts:
    """What a method changes of a training.

    Attributes:
        change: Function of the network that returns the changed one.
        penalties: Penalties for `compile`.
        augment: Layers that change images, with pixels in [0, 1], or that take a dictionary of
            "images" and "labels" if `mixes` is true.
        mixes: Whether the layers mix images with their labels.
        label_smoothing: As in `keras.losses.CategoricalCrossentropy`.
        network: Settings of the network, see `networks.Settings`.
    """

    change: Callable[[keras.Model], keras.Model] | None = None
    penalties: list[gbr.Penalty] = field(default_factory=list)
    augment: list[keras.Layer] = field(default_factory=list)
    mixes: bool = False
    label_smoothing: float = 0.0
    network: dict[str, Any] = field(default_factory=dict)


METHODS: dict[str, Callable[..., Parts]] = {}
PENALTIES: dict[str, Callable[..., Parts]] = {}


def _named(registry: dict[str, Callable[..., Parts]]) -> Callable[..., Any]:
    def register(function: Callable[..., Parts]) -> Callable[..., Parts]:
        registry[function.__name__.replace("_", "-")] = function
        return function

    return register


method, penalty = _named(METHODS), _named(PENALTIES)


@method
def plain() -> Parts:
    return Parts()


@method
def enc(
    alpha: float = 1.0,
    per_filter: bool = True,
    center: bool = True,
    learnable_alpha: bool = False,
    head: str = "plain",
) -> Parts:
    """The equal norm constraint of every convolution.

    `head` says what becomes of the classifier, which has no normalisation behind it: "plain"
    leaves it out, "wrapped" wraps it too, "normalized" wraps it and puts batch normalisation
    behind it.
    """
    if head not in ("plain", "wrapped", "normalized"):
        raise ValueError(f"head must be plain, wrapped or normalized. Received: {head!r}")

    def chosen(layer: keras.Layer) -> bool:
        is_head = layer.name == HEAD and head != "plain"
        return is_head or isinstance(layer, keras.layers.Conv2D)

    def change(model: keras.Model) -> keras.Model:
        return gbr.apply_enc(model, chosen, alpha, per_filter, center, learnable_alpha)

    return Parts(change, network={"normalized_head": head == "normalized"})


@method
def weight_norm() -> Parts:
    return Parts(_wrapping(gbr.WeightNorm))


@method
def weight_standardization() -> Parts:
    return Parts(_wrapping(gbr.WeightStandardization))


@method
def equal_norm(alpha: float = 1.0, per_filter: bool = True, center: bool = True) -> Parts:
    """The constraint that `enc` has as a reparametrization: a projection after each update."""
    constraint = keras.saving.serialize_keras_object(gbr.EqualNorm(alpha, per_filter, center))
    return Parts(_with_convolutions(lambda layer: _changed(layer, kernel_constraint=constraint)))


@method
def spectral(factor: float = 0.01, operator: str = "kernel") -> Parts:
    return Parts(_regularized(gbr.Spectral(factor, operator=operator)))


@method
def weissi(log_factor: float = 1e-4, l1_factor: float = 0.0) -> Parts:
    return Parts(_regularized(gbr.WEISSI(log_factor, l1_factor)))


@method
def shifted_l2(factor: float = 1e-4, epsilon: float = 1e-3) -> Parts:
    return Parts(_regularized(gbr.ShiftedL2(factor, epsilon)))


@method
def l2(factor: float = 1e-4) -> Parts:
    return Parts(_regularized(keras.regularizers.L2(factor)))


@method
def cutout(share: float = 0.25) -> Parts:
    """Cutout (DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552): a random square of every
    image is grey. `share`: that of its area; the paper has 16 x 16 of 32 x 32 pixels."""
    layer = keras.layers.RandomErasing(
        (1.0, 1.0), (share, share), fill_value=0.5, value_range=(0.0, 1.0), dtype="float32"
    )
    return Parts(augment=[layer])


@method
def mixup(alpha: float = 0.2) -> Parts:
    return Parts(augment=[keras.layers.MixUp(alpha, dtype="float32")], mixes=True)


@method
def cutmix(factor: float = 1.0) -> Parts:
    return Parts(augment=[keras.layers.CutMix(factor, dtype="float32")], mixes=True)


@method
def label_smoothing(amount: float = 0.1) -> Parts:
    return Parts(label_smoothing=amount)


@method
def dropout(rate: float = 0.3) -> Parts:
    return Parts(network={"dropout": rate})


@method
def drop_block(probability: float = 0.1, size: int = 7) -> Parts:
    return Parts(network={"drop_block": (probability, size)})


@penalty
def jacobian(weight: float, num_projections: int = 1, of: str = "output", **shared: Any) -> Parts:
    return Parts(penalties=[gbr.Jacobian(weight, num_projections, of, **_shared(shared))])


@penalty
def input_gradient(
    weight: float,
    norm: Any = 2,
    of: str = "loss",
    method: str = "double_backprop",
    **shared: Any,
) -> Parts:
    parts = gbr.InputGradient(weight, norm, of=of, method=method, **_shared(shared))
    return Parts(penalties=[parts])


@penalty
def parameter_gradient(weight: float, **shared: Any) -> Parts:
    return Parts(penalties=[gbr.ParameterGradient(weight, **_shared(shared))])


@penalty
def adversarial(weight: float, epsilon: float = 2 / 255, norm: Any = "inf", **shared: Any) -> Parts:
    data_range = (0.0, 1.0)
    part = gbr.Adversarial(weight, epsilon, norm, data_range, **_shared(shared))
    return Parts(penalties=[part])


def _shared(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that every penalty has."""
    unknown = sorted(set(settings) - {"interval", "fraction"})
    if unknown:
        raise TypeError(f"unknown settings {unknown}")
    return settings


def _wrapping(wrapper: Callable[..., keras.Layer]) -> Callable[[keras.Model], keras.Model]:
    """Wraps every convolution; the name of the layer becomes that of its wrapper."""
    return _with_convolutions(lambda layer: wrapper(_changed(layer), name=layer.name))


def _with_convolutions(
    replaced: Callable[[keras.Layer], keras.Layer],
) -> Callable[[keras.Model], keras.Model]:
    """Makes a new model in which a function has replaced every convolution."""

    def copied(layer: keras.Layer) -> keras.Layer:
        return (replaced if isinstance(layer, keras.layers.Conv2D) else _changed)(layer)

    return lambda model: keras.models.clone_model(model, clone_function=copied)


def _changed(layer: keras.Layer, **settings: Any) -> keras.Layer:
    """A new layer like the given one, with other settings."""
    return type(layer).from_config({**layer.get_config(), **settings})


def _regularized(regularizer: Any) -> Callable[[keras.Model], keras.Model]:
    return lambda model: gbr.apply_regularizer(model, regularizer)


def combined(
    methods: list[str] | tuple[str, ...], penalties: list[str] | tuple[str, ...]
) -> list[Parts]:
    """The parts of methods and penalties that are given as texts.

    Args:
        methods: Texts such as "enc:per_filter=true,alpha=0.5".
        penalties: Texts such as "jacobian:0.01,interval=8"; the weight comes first.

    Raises:
        ValueError: There is no such method, or a setting is unknown or has a wrong value.
    """
    found = [_called(METHODS, "method", text) for text in methods]
    return [*found, *(_called(PENALTIES, "penalty", text) for text in penalties)]


def _called(registry: dict[str, Callable[..., Parts]], kind: str, text: str) -> Parts:
    name, _, settings = text.partition(":")
    if name not in registry:
        raise ValueError(f"{kind} must be one of {', '.join(registry)}. Received: {name!r}")
    positional, named = [], {}
    for setting in filter(None, settings.split(",")):
        key, equals, value = setting.rpartition("=")
        if equals:
            named[key.strip().replace("-", "_")] = _value(value)
        else:
            positional.append(_value(value))
    try:
        return registry[name](*positional, **named)
    except (TypeError, ValueError) as error:
        accepted = [str(each) for each in inspect.signature(registry[name]).parameters.values()]
        if "**shared: Any" in accepted:
            accepted[-1:] = ["interval: int = 1", "fraction: float = 1.0"]
        raise ValueError(
            f"{kind} {name}: {error}. It takes: {', '.join(accepted) or 'no settings'}. "
            f"Received: {text!r}"
        ) from None


def _value(text: str) -> Any:
    """A number, a Boolean or `None`, as it is written, or else the text."""
    words = {"true": True, "false": False, "none": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text.strip()
