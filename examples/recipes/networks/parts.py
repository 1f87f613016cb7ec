"""The registry of the networks, and the parts that they share."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from recipes.methods import HEAD
from recipes.networks.drop_block import DropBlock

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Settings:
    """What methods change inside a network.

    Attributes:
        dropout: Rate of the dropout before the classifier, or in the blocks of a wide network.
        drop_block: Probability and size of the blocks of `DropBlock`, in the last stages.
        normalized_head: Whether batch normalisation stands behind the classifier.

    Raises:
        ValueError: The rate is not a number in [0, 1).
    """

    dropout: float = 0.0
    drop_block: tuple[float, int] | None = None
    normalized_head: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be a number in [0, 1). Received: {self.dropout!r}")


Build = Callable[[Shape, int, Settings], keras.Model]
NETWORKS: dict[str, Build] = {}


def network(function: Build) -> Build:
    """Registers a function of the image shape, the number of classes and `Settings`.

    It returns a functional model from images in [0, 1] to logits.
    """
    NETWORKS[function.__name__] = function
    return function


def image_input(shape: Shape) -> tuple[Any, Any]:
    """The input, and its pixels with a mean near 0 and a deviation near 1."""
    inputs = keras.Input(shape)
    return inputs, layers.Rescaling(4.0, -2.0, name="rescaling")(inputs)


def conv(x: Any, filters: int, size: int, strides: int, name: str, groups: int = 1) -> Any:
    """A convolution whose normalisation has its bias; padded alike on all sides."""
    if size > 1 and strides > 1:  # "same" would pad only the end of an even length
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_padding")(x)
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out")
    return layers.Conv2D(
        filters,
        size,
        strides,
        "same" if strides == 1 else "valid",
        groups=groups,
        use_bias=False,
        kernel_initializer=initializer,
        name=name,
    )(x)


def norm(x: Any, name: str, relu: bool = True) -> Any:
    """Batch normalisation, and ReLU."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def dropped_blocks(x: Any, settings: Settings, name: str) -> Any:
    """DropBlock at the end of a block's branch, if the settings ask for it.

    The paper also has it behind the other convolutions and on the shortcut.
    """
    if settings.drop_block is None:
        return x
    return DropBlock(*settings.drop_block, name=f"{name}_drop_block")(x)


def dropped(x: Any, rate: float, name: str) -> Any:
    """Dropout with a seed of its own.

    Without one, PyTorch's is drawn from its global generator, whose state no variable has: a
    training that is resumed would draw other numbers.
    """
    return layers.Dropout(rate, seed=random.randrange(2**31), name=name)(x) if rate else x


def classifier(x: Any, classes: int, settings: Settings, dropout: bool = True) -> Any:
    """Global average pooling and the logits, which are float32 in every precision."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = dropped(x, settings.dropout if dropout else 0.0, "dropout")
    logits = layers.Dense(classes, name=HEAD, dtype="float32")(x)
    if settings.normalized_head:
        logits = layers.BatchNormalization(
            momentum=0.9, name=f"{HEAD}_normalization", dtype="float32"
        )(logits)
    return logits
