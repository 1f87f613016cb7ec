"""Networks for images of 32 x 32 pixels and less."""

import keras
from keras import layers

from recipes.networks.parts import (
    Settings,
    Shape,
    classifier,
    conv,
    dropped,
    dropped_blocks,
    image_input,
    network,
    norm,
)


def _cifar_resnet(depth: int, shape: Shape, classes: int, settings: Settings) -> keras.Model:
    """ResNet for small images (He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2).

    Shortcuts that change the shape are 1 x 1 convolutions (option B): the paper's zero padding
    (option A) has no kernel, and a method that changes kernels should see every path.
    """
    inputs, x = image_input(shape)
    x = norm(conv(x, 16, 3, 1, "stem"), "stem")
    for stage, filters in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            name = f"stage{stage + 1}_block{block + 1}"
            strides = 2 if stage and not block else 1
            shortcut = x
            x = norm(conv(x, filters, 3, strides, f"{name}_conv1"), f"{name}_conv1")
            x = norm(conv(x, filters, 3, 1, f"{name}_conv2"), f"{name}_conv2", relu=False)
            if strides > 1:
                shortcut = conv(shortcut, filters, 1, strides, f"{name}_shortcut")
                shortcut = norm(shortcut, f"{name}_shortcut", relu=False)
            if stage:
                x = dropped_blocks(x, settings, name)
            x = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, shortcut]))
    return keras.Model(inputs, classifier(x, classes, settings), name=f"resnet{depth}")


@network
def resnet8(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _cifar_resnet(8, shape, classes, settings)


@network
def resnet20(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _cifar_resnet(20, shape, classes, settings)


@network
def resnet56(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    return _cifar_resnet(56, shape, classes, settings)


@network
def wrn16_4(shape: Shape, classes: int, settings: Settings) -> keras.Model:
    """Wide ResNet (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146): depth 16, four
    times as wide, normalisation before the convolutions, dropout between the two of a block."""
    inputs, x = image_input(shape)
    x = conv(x, 16, 3, 1, "stem")
    for stage, filters in enumerate((64, 128, 256)):
        for block in range(2):
            name = f"stage{stage + 1}_block{block + 1}"
            strides = 2 if stage and not block else 1
            shortcut, x = x, norm(x, name)
            if x.shape[-1] != filters:
                shortcut = conv(x, filters, 1, strides, f"{name}_shortcut")
            x = norm(conv(x, filters, 3, strides, f"{name}_conv1"), f"{name}_conv1")
            x = dropped(x, settings.dropout, f"{name}_dropout")
            x = conv(x, filters, 3, 1, f"{name}_conv2")
            if stage:
                x = dropped_blocks(x, settings, name)
            x = layers.Add(name=f"{name}_add")([x, shortcut])
    x = norm(x, "last")
    return keras.Model(inputs, classifier(x, classes, settings, dropout=False), name="wrn16_4")
