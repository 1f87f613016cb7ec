"""Derivatives that TensorFlow has wrong or lacks, and what else would train wrongly there."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_gbr as gbr
from keras_gbr.backend.tensorflow.max_pooling import at_largest
from support.networks import batch, random_directions, slope, use_float64

GRAPH, EAGER, XLA = {"jit_compile": False}, {"run_eagerly": True}, {"jit_compile": True}


def by_hand(x, values, sizes, strides, padding):
    """The entries of `values` where `x` is largest, window by window."""
    pads = [(0, 0)] * x.ndim
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape, sizes, strides, strict=True)]
    if padding == "SAME":
        counts = [-(-n // s) for n, s in zip(x.shape, strides, strict=True)]
        missing = [
            max((c - 1) * s + k - n, 0)
            for c, s, k, n in zip(counts, strides, sizes, x.shape, strict=True)
        ]
        pads = [(m // 2, m - m // 2) for m in missing]
    x = np.pad(x, pads, constant_values=-np.inf)
    values = np.pad(values, pads)
    result = np.empty(counts, values.dtype)
    for index in np.ndindex(*counts):
        window = tuple(
            slice(i * s, i * s + k) for i, s, k in zip(index, strides, sizes, strict=True)
        )
        result[index] = values[window].ravel()[x[window].argmax()]
    return result


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("shape", "sizes", "strides"),
    [
        ((2, 5, 6, 2), (1, 3, 2, 1), (1, 1, 1, 1)),
        ((2, 7, 5, 2), (1, 3, 3, 1), (1, 2, 2, 1)),
        ((1, 4, 5, 4, 2), (1, 2, 2, 2, 1), (1, 2, 1, 2, 1)),
    ],
)
def test_the_entry_where_a_window_is_largest_is_picked(shape, sizes, strides, padding, dtype):
    rng = np.random.default_rng(0)
    # Few different numbers, so that many are equal: the first one counts.
    x, values = rng.integers(0, 4, shape).astype("float64"), rng.integers(-9, 9, shape)
    expected = by_hand(x, values, sizes, strides, padding)
    arguments = tf.cast(x, dtype), tf.cast(values, dtype), expected.shape, sizes, strides, padding
    np.testing.assert_array_equal(tf.cast(at_largest(*arguments), "float64"), expected)


def network(body, shape):
    inputs = keras.Input(shape)
    x = layers.Flatten()(body(layers.Dense(4, "tanh")(inputs)))
    return gbr.GBRModel(inputs, layers.Dense(2, dtype="float32" if half() else None)(x))


def half():
    return "mixed" in keras.config.dtype_policy().name


def moves(body, shape, mode, before=None):
    """What one step of gradient descent subtracts from each weight."""
    keras.utils.set_random_seed(1)
    model = network(body, shape)
    optimizer = keras.optimizers.SGD(1.0)
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=16.0)
    model.compile(optimizer, "mse", penalties=[gbr.InputGradient(1.0)], **mode)
    x, _ = batch(shape)
    weights = model.get_weights()
    model.train_on_batch(x, np.ones((4, 2)))
    pairs = zip(weights, model.get_weights(), strict=True)
    return np.concatenate([(a - b).astype("float64").ravel() for a, b in pairs])


def poolings():
    for rank, shape in ((1, (9, 3)), (2, (6, 6, 3)), (3, (4, 4, 4, 2))):
        yield f"MaxPooling{rank}D", shape, (3, 1, "same")
        yield f"MaxPooling{rank}D", shape, (2,)
        yield f"AdaptiveMaxPooling{rank}D", shape, (2,)


# The types round by 6e-8, 5e-4 and 4e-3, in each of some ten operations.
TOLERANCES = {"mixed_float16": 0.02, "float32": 1e-5, "mixed_bfloat16": 0.1}


@pytest.mark.parametrize("turn", range(9), ids=[f"{p[0]}{p[2]}" for p in poolings()])
def test_max_pooling_under_xla_in_every_precision(turn):
    """Each pooling in one precision by turns, so that each rank and kind meets all of them."""
    name, shape, arguments = list(poolings())[turn]
    policy = list(TOLERANCES)[(turn + turn // 3) % 3]

    def body(x):
        return getattr(layers, name)(*arguments)(x)

    # No mode pools volumes in float64.
    single = moves(body, shape, EAGER)
    keras.config.set_dtype_policy(policy)
    deviation = np.linalg.norm(moves(body, shape, XLA) - single) / np.linalg.norm(single)
    assert deviation < TOLERANCES[policy], policy


def test_max_pooling_that_keeps_the_size_in_a_graph():
    """TensorFlow's kernel overwrites its inputs."""

    def body(x):
        return layers.MaxPooling2D(3, 1, padding="same")(x)

    eager, graph = (moves(body, (6, 6, 3), mode) for mode in (EAGER, GRAPH))
    np.testing.assert_allclose(graph, eager, rtol=1e-4, atol=1e-6)


class Traced(layers.Layer):
    """A layer that holds a `tf.function` around another one, or around `tf.nn.moments`."""

    def __init__(self, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, shape):
        if self.inner is not None:
            self.inner.build(shape)

        def normalized(x):
            if self.inner is not None:
                return self.inner(x, training=True)
            mean, variance = tf.nn.moments(x, [1], keepdims=True)
            return (x - mean) / tf.sqrt(variance + 0.01)

        self.function = tf.function(normalized, autograph=False)
        super().build(shape)

    def call(self, x):
        return self.function(x)


class Looped(layers.Layer):
    """A normalisation in a loop of TensorFlow's."""

    def call(self, x):
        def body(i, x):
            mean, variance = tf.nn.moments(x, [1], keepdims=True)
            return [i + 1, tf.sin(x - mean) / tf.sqrt(variance + 0.1)]

        return tf.while_loop(lambda i, x: i < 2, body, [0, x], maximum_iterations=2)[1]


class Saved(layers.Layer):
    """A layer normalisation that was saved as a graph."""

    def __init__(self, path, **kwargs):
        super().__init__(**kwargs)
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers.LayerNormalization()(inputs))
        model.export(path, verbose=False)
        self.inner = layers.TFSMLayer(path, call_endpoint="serve")

    def call(self, x):
        return self.inner(x)


NORMALIZED = {
    "moments": lambda path: Traced(),
    "batch": lambda path: Traced(layers.BatchNormalization()),
    "group": lambda path: Traced(layers.GroupNormalization(2)),
    "loop": lambda path: Looped(),
    "saved": lambda path: Saved(str(path / "saved")),
}


@pytest.mark.parametrize(
    ("first", "mode"),
    [(True, GRAPH), (True, EAGER), (False, GRAPH)],
    ids=["after predict", "after predict, eager", "at once"],
)
@pytest.mark.parametrize("name", NORMALIZED)
def test_the_variance_of_a_function_that_was_traced_before(name, first, mode, tmp_path):
    use_float64()
    layer = NORMALIZED[name](tmp_path)
    model = network(layer, (4,))
    x, y = batch((4,), 6)[0], batch((2,), 6, seed=1)[0]
    if first:
        model.predict(x, verbose=0)
    penalty = gbr.InputGradient(1.0)
    model.compile(keras.optimizers.SGD(1.0), "mse", penalties=[penalty], **mode)
    state = [(v, v.numpy()) for v in model.non_trainable_variables]

    def value():
        for variable, start in state:
            variable.assign(start)
        forward = model.forward_pass(tf.constant(x), tf.constant(y), training=True)
        loss = keras.ops.mean(keras.ops.square(forward.y_pred - y))
        return loss + keras.ops.mean(penalty(forward))

    variables = model.trainable_variables
    directions = random_directions(variables)
    numeric = slope(value, variables, directions)
    before = [v.numpy() for v in variables]
    model.train_on_batch(x, y)
    steps = [old - v.numpy() for old, v in zip(before, variables, strict=True)]
    analytic = sum((s * d).sum() for s, d in zip(steps, directions, strict=True))
    np.testing.assert_allclose(analytic, numeric, rtol=1e-5)


class Decorated(layers.Layer):
    """A layer whose `tf.function` reads the kernel or gets it as an argument."""

    def __init__(self, given, **kwargs):
        super().__init__(**kwargs)
        self.given, self.dense = given, layers.Dense(3)
        self.function = tf.function(self.inner, autograph=False)

    def build(self, shape):
        self.dense.build(shape)

    def inner(self, x, kernel=None):
        return self.dense(x) if kernel is None else tf.matmul(x, kernel)

    def call(self, x):
        return self.function(x, self.dense.kernel) if self.given else self.function(x)


def test_a_function_that_would_keep_its_kernel_is_refused():
    x = tf.random.stateless_normal((4, 5), (1, 2))
    with pytest.raises(ValueError, match=r"must not read its kernel in a `tf.function`"):
        gbr.ENC(Decorated(False))(x)
    layer = gbr.ENC(Decorated(True))
    for seed in range(2):
        layer(x)
        layer.layer.dense.kernel.assign(np.random.default_rng(seed).standard_normal((5, 3)))
        np.testing.assert_allclose(layer(x), x @ layer.kernel, rtol=1e-5)
