"""The wrappers and the layers that they wrap, with their kernels by NumPy."""

import keras
import numpy as np
from keras import layers

import keras_gbr as gbr
from support import oracles

CONVOLUTIONS = {
    "conv1d valid": lambda **k: layers.Conv1D(4, 3, **k),
    "conv1d same strided": lambda **k: layers.Conv1D(4, 3, 2, padding="same", **k),
    "conv1d causal dilated": lambda **k: layers.Conv1D(
        4, 3, padding="causal", dilation_rate=2, **k
    ),
    "conv1d grouped": lambda **k: layers.Conv1D(4, 3, groups=2, **k),
    "conv2d valid": lambda **k: layers.Conv2D(6, 3, **k),
    "conv2d same strided": lambda **k: layers.Conv2D(6, (3, 2), 2, padding="same", **k),
    "conv2d dilated": lambda **k: layers.Conv2D(6, 3, dilation_rate=2, activation="tanh", **k),
    "conv2d grouped": lambda **k: layers.Conv2D(6, 3, groups=2, use_bias=False, **k),
    "conv2d channels first": lambda **k: layers.Conv2D(6, 3, data_format="channels_first", **k),
    "conv3d valid": lambda **k: layers.Conv3D(4, 2, **k),
    "conv3d same strided": lambda **k: layers.Conv3D(4, 3, 2, padding="same", **k),
    "conv3d dilated": lambda **k: layers.Conv3D(4, 2, dilation_rate=2, **k),
}
DENSE = {
    "dense": lambda **k: layers.Dense(5, activation="relu", **k),
    "dense without bias": lambda **k: layers.Dense(5, use_bias=False, **k),
    "dense of a sequence": lambda **k: layers.Dense(5, **k),
    "dense of one unit": lambda **k: layers.Dense(1, **k),
}
LAYERS = CONVOLUTIONS | DENSE


def input_shape(name):
    """A shape with two samples and four channels."""
    special = {"dense of a sequence": (2, 3, 4)}
    spatial = {"conv1d": (9,), "conv2d": (8, 7), "conv3d": (5, 6, 5), "dense": ()}
    if name == "conv2d channels first":
        return (2, 4, 8, 7)
    return special.get(name, (2, *spatial[name.split()[0]], 4))


# Wrapper and the kernel that the layer must compute with.
FORMS = [(per_filter, center) for per_filter in (True, False) for center in (True, False)]
WRAPPERS = {
    **{
        f"ENC{form}": (
            lambda layer, form=form, **k: gbr.ENC(layer, 2.0, *form, **k),
            lambda w, form=form: oracles.equal_norm(w, 2.0, *form),
        )
        for form in FORMS
    },
    "ENC learnable": (
        lambda layer, **k: gbr.ENC(layer, 0.5, learnable_alpha=True, **k),
        lambda w: oracles.equal_norm(w, 0.5),
    ),
    "WeightNorm": (gbr.WeightNorm, lambda w: np.asarray(w, "float64")),
    "WeightStandardization": (gbr.WeightStandardization, oracles.weight_standardization),
}


def batch(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def built(wrapper_name, layer, shape):
    """The wrapper around `layer`, built, with a kernel and a bias other than the initial ones."""
    wrapper = WRAPPERS[wrapper_name][0](layer)
    layer.build(shape)
    layer.set_weights([batch(w.shape, seed=7) + 0.2 for w in layer.get_weights()])
    wrapper.build(shape)
    return wrapper


def plain_twin(layer, kernel, shape):
    """A new plain layer with this kernel and the other weights of `layer`."""
    config = {k: v for k, v in layer.get_config().items() if k != "name"}
    twin = type(layer).from_config(config)
    twin.build(shape)
    twin.set_weights([np.asarray(kernel), *layer.get_weights()[1:]])
    return twin


def small_model(wrapper_name="ENC(True, True)"):
    """A model with a wrapped convolution and a wrapped dense layer, random biases included."""
    wrap = WRAPPERS[wrapper_name][0]
    inputs = keras.Input((6, 6, 2))
    x = wrap(layers.Conv2D(4, 3, activation="tanh"), name="wrapped_conv")(inputs)
    x = wrap(layers.Dense(3, kernel_regularizer=gbr.ShiftedL2(0.1)))(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    model.set_weights([w + 0.1 * batch(w.shape, seed=9) for w in model.get_weights()])
    return model
