"""Small networks, and their values and derivatives by NumPy."""

import keras
import numpy as np
from keras import layers
from keras.src.backend.common.dtypes import BIT64_TO_BIT32_DTYPE

import keras_gbr as gbr
from support.calls import BACKEND, differentiated, number, to_numpy


def use_float64():
    """Builds and computes everything that follows in double precision."""
    allow_float64(True)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


def allow_float64(allowed):
    """Makes operations keep float64, which two of the backends do only on request."""
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", allowed)
    if keras.backend.backend() != "tensorflow":
        # Keras takes means, products and others of float64 tensors in float32.
        BIT64_TO_BIT32_DTYPE["float64"] = "float64" if allowed else "float32"


def logits_loss(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def dense_network(outputs=3, activation=None, cls=gbr.GBRModel):
    """Five inputs, seven tanh units, `outputs` units."""
    inputs = keras.Input((5,))
    hidden = layers.Dense(7, activation="tanh")(inputs)
    return cls(inputs, layers.Dense(outputs, activation=activation)(hidden))


def conv_network(normalization=layers.GroupNormalization, groups=2):
    """A smooth convolutional network with a normalisation and an equal norm kernel."""
    inputs = keras.Input((6, 6, 2))
    x = gbr.ENCConv(layers.Conv2D(4, 3))(inputs)
    x = normalization(groups)(x) if groups else normalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.Activation("tanh")(x))
    return gbr.GBRModel(inputs, layers.Dense(3)(x))


def batch(shape, samples=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, *shape)), rng.integers(0, classes, samples)


def predictions(model, x):
    return to_numpy(model(keras.ops.convert_to_tensor(x, "float64")))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropies(z, y):
    return -np.log(softmax(z)[np.arange(len(y)), y])


def jacobians(function, x, step=1e-5):
    """The Jacobian of each sample of `function(x)`, `(samples, outputs, inputs)`, by central
    differences; the samples must not depend on each other."""
    flat = x.reshape(len(x), -1)
    columns = []
    for index in range(flat.shape[1]):
        shift = np.zeros_like(flat)
        shift[:, index] = step
        high, low = (function((flat + s).reshape(x.shape)) for s in (shift, -shift))
        columns.append((high - low).reshape(len(x), -1) / (2 * step))
    return np.stack(columns, axis=-1)


def slope(function, variables, directions, step=1e-5):
    """The derivative of `function()` along `directions`, by central differences."""
    values = [to_numpy(variable.value) for variable in variables]
    ends = []
    for sign in (1, -1):
        for variable, value, direction in zip(variables, values, directions, strict=True):
            variable.assign(value + sign * step * direction)
        ends.append(number(function()))
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return (ends[0] - ends[1]) / (2 * step)


def random_directions(variables, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(tuple(variable.shape)) for variable in variables]


def values(model, penalty, x, y=None, loss="logits", sample_weight=None):
    """The penalty's values on a batch, as NumPy."""
    return to_numpy(_of_batch(model, penalty, x, y, loss, sample_weight)())


def mean_of(model, penalty, x, y, **settings):
    """A callable: the mean of the penalty's values on a batch."""
    of_batch = _of_batch(model, penalty, x, y, **settings)
    return lambda: keras.ops.mean(of_batch())


def _of_batch(model, penalty, x, y, loss="logits", sample_weight=None, **settings):
    loss = logits_loss() if loss == "logits" else loss
    model.compile("sgd", loss, penalties=[penalty])
    x, y = (None if data is None else keras.ops.convert_to_tensor(data) for data in (x, y))
    return lambda: penalty(model.forward_pass(x, y, sample_weight, **settings))


def check_gradient(model, total, numeric=None):
    """The gradient of a scalar against central differences of it, or of the function `numeric`,
    along random directions."""
    variables = model.trainable_variables
    evaluated = differentiated(lambda: (total(), []), variables)
    gradients = evaluated()[2]
    if numeric is None:
        # If the gradient is compiled, its program is faster than single operations.
        numeric = (lambda: evaluated()[0]) if BACKEND == "jax" else total
    for seed in range(3):
        directions = random_directions(variables, seed)
        analytic = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        # Along a direction the parts may cancel: the length of the gradient is the scale.
        scale = sum((g**2).sum() for g in gradients) ** 0.5
        expected = slope(numeric, variables, directions)
        np.testing.assert_allclose(analytic, expected, rtol=1e-5, atol=1e-6 * scale)
