"""Networks for images of ImageNet's size.

The residual ones are one family, without biases in front of a normalisation: those of
`keras.applications` have them, and so more parameters than the papers count. SE-ResNet-101 has
49.33 million; the 49.36 of the ENC paper would need a second parameter for each channel of squeeze
and excitation, and then its 28.09 for SE-ResNet-50 would be 28.10.
"""

from typing import Any

import keras
from keras import layers

from recipes.networks.parts import (
    Settings,
    Shape,
    classifier,
    conv,
    dropped_blocks,
    image_input,
    network,
    norm,
)

REDUCTION = 16  # of the channels, in squeeze and excitation
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def _resnet(
    depth: int,
    shape: Shape,
    classes: int,
    settings: Settings,
    groups: int = 1,
    width: int = 64,
    squeeze: bool = False,
) -> keras.Model:
    """ResNet (He et al. 2015), ResNeXt (Xie et al. 2016, https://arxiv.org/abs/1611.05431) or
    SE-ResNet (Hu et al. 2017, https://arxiv.org/abs/1709.01507).

    Args:
        depth: 50 or 101.
        shape: Height, width and channels of an image.
        classes: Number of classes.
        settings: What methods change.
        groups: Groups of the 3 x 3 convolutions.
        width: Channels of the 3 x 3 convolutions of the first stage.
        squeeze: Whether blocks end with squeeze and excitation.
    """
    inputs, x = image_input(shape)
    x = norm(conv(x, 64, 7, 2, "stem"), "stem")
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(layers.ZeroPadding2D(1, name="stem_pad")(x))
    for stage, blocks in enumerate(BLOCKS[depth]):
        for block in range(blocks):
            name = f"stage{stage + 1}_block{block + 1}"
            strides, channels = 2 if stage and not block else 1, 256 * 2**stage
            shortcut, inside = x, width * 2**stage
            x = norm(conv(x, inside, 1, 1, f"{name}_conv1"), f"{name}_conv1")
            x = norm(conv(x, inside, 3, strides, f"{name}_conv2", groups), f"{name}_conv2")
            x = norm(conv(x, channels, 1, 1, f"{name}_conv3"), f"{name}_conv3", relu=False)
            if not block:
                shortcut = conv(shortcut, channels, 1, strides, f"{name}_shortcut")
                shortcut = norm(shortcut, f"{name}_shortcut", relu=False)
            if squeeze:
                x = _squeezed(x, name)
            if stage >= 2:
                x = dropped_blocks(x, settings, name)
            x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, shortcut]))
    kind = "se_resnet" if squeeze else "resnet" if groups == 1 else "resnext"
    return keras.Model(inputs, classifier(x, classes, settings), name=f"{kind}{depth}")


def _squeezed(x: Any, name: str) -> Any:
    """Squeeze and excitation: each channel times a factor that depends on the means of all."""
    channels = x.shape[-1]
    factors = layers.GlobalAveragePooling2D(name=f"{name}_squeeze")(x)
    factors = layers.Dense(channels // REDUCTION, "relu", name=f"{name}_reduce")(factors)
    factors = layers.Dense(channels, "sigmoid", name=f"{name}_expand")(factors)
    factors = layers.Reshape((1, 1, channels), name=f"{name}_factors")(factors)
    return layers.Multiply(name=f"{name}_excite")([x, factors])


@network
def resnet50(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _resnet(50, shape, classes, settings)


@network
def resnet101(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _resnet(101, shape, classes, settings)


@network
def resnext50(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _resnet(50, shape, classes, settings, groups=32, width=128)


@network
def resnext101(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _resnet(101, shape, classes, settings, groups=32, width=128)


@network
def se_resnet50(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _resnet(50, shape, classes, settings, squeeze=True)


@network
def se_resnet101(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _resnet(101, shape, classes, settings, squeeze=True)


@network
def densenet201(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    """DenseNet-201 of `keras.applications` (Huang et al. 2016, https://arxiv.org/abs/1608.06993).

    It takes dropout before the classifier. It does not take DropBlock.
    """
    if settings.drop_block:
        raise ValueError("densenet201 has no place for drop-block: choose another network")
    inputs, x = image_input(shape)
    trunk = keras.applications.DenseNet201(include_top=False, weights=None, input_tensor=x)
    return keras.Model(inputs, classifier(trunk.output, classes, settings), name="densenet201")
