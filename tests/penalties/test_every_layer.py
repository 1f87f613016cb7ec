"""Every public layer and activation of Keras with a penalty, in each precision and way of running.

The gradient of the penalised loss is that of central differences in double precision; or the layer
is refused by name, or fails as it does in a plain model. Layers stand side by side in one network,
since compiling takes most of the time. An error in a layer shows in the weights of its own branch.

One pass of the tests takes each network in double precision and in one other combination, by
turns; `make test-all` takes all.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_gbr as gbr
from support import every_layer as every
from support.networks import allow_float64, random_directions, slope, use_float64

MODES = {"graph": {"jit_compile": False}, "xla": {"jit_compile": True}}
# The types round by 6e-8, 5e-4 and 4e-3, in each of some twenty operations.
TOLERANCES = {"float32": 1e-4, "mixed_float16": 0.04, "mixed_bfloat16": 0.2}
COMBINATIONS = [c for c in itertools.product(TOLERANCES, MODES) if c != ("float32", "graph")]
# TensorFlow has no second derivative.
REFUSED = {"Resizing", "softsign"}
# They hold something constant that varies, so their gradient is wrong in plain Keras too.
OWN_GRADIENT = {"SpectralNormalization"}
# Layers and precisions that fail in a plain model too.
PLAIN_FAILS = {
    *((name, policy) for name in ("ActivityRegularization",) for policy in list(TOLERANCES)[1:]),
    ("sparsemax", "mixed_float16"),
    *(("STFTSpectrogram", policy) for policy in list(TOLERANCES)[1:]),
}
# Not in double precision: Keras computes this layer only in single precision, and TensorFlow pools
# volumes only in single precision; test_corrected_gradients.py compares these with eager steps.
SINGLE = {"MelSpectrogram"}
VOLUMES = {f"{way}{name}Pooling3D" for way in ("", "Adaptive") for name in ("Max", "Average")}
# Layers that change images. `MOVED` compute in single precision, see test_image_transforms.py;
# `UNSTEADY` draw changes with jumps, or do not take double precision.
MOVED = {f"Random{name}" for name in ("Perspective", "Rotation", "Shear", "Translation", "Zoom")}
UNSTEADY = {"AugMix", "Equalization", "RandAugment"}
# They lack a first or second derivative, or compute with whole numbers on the way.
REFUSED_IMAGES = {
    "ContrastLimitedAdaptiveHistogramEqualization",
    *(f"Random{name}" for name in ("Crop", "Hue", "Posterization", "Saturation")),
}
# They draw different random numbers in each precision, and under XLA.
RANDOM = {name for name in every.CALLS if "Dropout" in name or "Noise" in name}


def networks_of(size=8):
    """Names in groups that share the shape of their inputs."""
    names = [*every.CALLS, *every.activations()]
    names = sorted({*names} - REFUSED - OWN_GRADIENT - RANDOM - VOLUMES - SINGLE - {*every.IMAGES})
    names.sort(key=lambda name: str(every.shape_of(name)))
    for _, group in itertools.groupby(names, every.shape_of):
        yield from _batched(list(group), size)


def _batched(names, size):
    return [tuple(names[start : start + size]) for start in range(0, len(names), size)]


NETWORKS = list(networks_of())


def step(names, weights=None, **mode):
    """The model, its variables before a step of descent, and what that subtracts from weights."""
    keras.utils.set_random_seed(4)
    model = every.network(names)
    optimizer = keras.optimizers.SGD(1.0)
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=16.0)
    model.compile(optimizer, "mse", penalties=[gbr.InputGradient(1.0)], **mode)
    if weights is not None:
        for variable, value in zip(model.variables, weights, strict=True):
            variable.assign(value)
    before = [v.numpy() for v in model.trainable_variables]
    start = [(v, v.numpy()) for v in model.variables]
    x, y = (part.astype(keras.config.floatx()) for part in every.data(names))
    model.train_on_batch(x, y)
    pairs = zip(before, model.trainable_variables, strict=True)
    return model, start, [old.astype("float64") - new.numpy() for old, new in pairs]


def assert_gradient_is_the_slope(names):
    """Returns the weights and the gradient, in double precision and a graph."""
    use_float64()
    model, start, gradient = step(names, **MODES["graph"])
    x, y = map(tf.constant, every.data(names))
    for variable, old in start:
        variable.assign(old)
    trained = {id(v) for v in model.trainable_variables}
    state = [(v, old) for v, old in start if id(v) not in trained]

    def value():
        for variable, old in state:  # the same random numbers
            variable.assign(old)
        forward = model.forward_pass(x, y, training=True)
        losses = keras.ops.mean(keras.ops.square(forward.y_pred - y)) + sum(model.losses)
        return losses + keras.ops.mean(model.penalties[0](forward))

    variables = model.trainable_variables
    # Each weight has the same share in the slope, however small its gradient is.
    directions = [
        direction / max(np.linalg.norm(part), 1e-2)
        for direction, part in zip(random_directions(variables), gradient, strict=True)
    ]
    numeric = slope(value, variables, directions, 1e-6)
    analytic = sum((g * d).sum() for g, d in zip(gradient, directions, strict=True))
    # Up to fifty weights, each with two errors of about 1e-8.
    np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-5)
    allow_float64(False)
    return [old for _, old in start], gradient


def assert_agrees(names, combinations):
    start, expected = assert_gradient_is_the_slope(names)
    largest = max(np.linalg.norm(part) for part in expected)
    for policy, mode in combinations:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(policy)
        failing = [name for name in names if (name, policy) in PLAIN_FAILS]
        if failing:
            continue
        _, _, gradient = step(names, start, **MODES[mode])
        for actual, part in zip(gradient, expected, strict=True):
            scale = np.linalg.norm(part) + 0.05 * largest
            assert np.linalg.norm(actual - part) < TOLERANCES[policy] * scale, (policy, mode)


@pytest.mark.parametrize("names", NETWORKS, ids=lambda names: f"{names[0]} to {names[-1]}")
def test_the_gradient_of_a_penalty_through_every_layer(names):
    assert_agrees(names, [COMBINATIONS[NETWORKS.index(names) % len(COMBINATIONS)]])


@pytest.mark.whole_table
@pytest.mark.parametrize("names", NETWORKS, ids=lambda names: f"{names[0]} to {names[-1]}")
def test_the_gradient_is_the_same_in_every_precision_and_way_of_running(names):
    assert_agrees(names, COMBINATIONS)


@pytest.mark.parametrize("names", [tuple(sorted(RANDOM))[:4]], ids=["four"])
def test_the_gradient_of_a_penalty_through_random_layers(names):
    assert_gradient_is_the_slope(names)


@pytest.mark.parametrize("name", sorted({*every.IMAGES} - MOVED - UNSTEADY - REFUSED_IMAGES))
def test_the_gradient_of_a_penalty_through_layers_that_change_images(name):
    assert_gradient_is_the_slope((name,))


@pytest.mark.parametrize("name", sorted(REFUSED_IMAGES))
def test_a_layer_that_cuts_images_off_is_refused(name):
    with pytest.raises(ValueError, match=r"A penalty .*needs"):
        step((name,), **MODES["graph"])


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_layer_without_second_derivative_is_refused(name):
    with pytest.raises(ValueError, match=r"A penalty needs second derivatives.* of layer '"):
        step((name,), **MODES["graph"])


def test_every_layer_and_activation_of_keras_is_in_the_table():
    apart = {name for names in every.APART.values() for name in names}
    assert {*every.CALLS} - {"glu", "threshold"} | apart == set(every.classes())
    assert not {*every.CALLS} & apart
    assert {"tanh", "softsign", "glu", "threshold"} < every.activations()
