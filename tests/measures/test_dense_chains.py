"""weight_bound and gradient_transfer: that they hold, are tight, and refuse what they must."""

import contextlib
import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import activations, layers

import keras_gbr as gbr
from support.calls import BACKEND, in_double_precision, to_numpy
from support.networks import batch, jacobians, logits_loss, predictions, slope, use_float64

SAMPLES = 3
# The activations that follow a dense layer: function and derivative.
ACTIVATIONS = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
    "softplus": (lambda z: np.logaddexp(z, 0), lambda z: 1 / (1 + np.exp(-z))),
    "linear": (lambda z: z, np.ones_like),
    "gelu": (
        lambda z: to_numpy(activations.gelu(keras.ops.convert_to_tensor(z))),
        lambda z: (ACTIVATIONS["gelu"][0](z + 1e-6) - ACTIVATIONS["gelu"][0](z - 1e-6)) / 2e-6,
    ),
}
# Widths, activation of the hidden layers, whether there are biases.
ARCHITECTURES = [
    ((4, 1), "linear", True),
    ((3, 5, 1), "tanh", True),
    ((6, 4, 2), "relu", True),
    ((5, 7, 3, 1), "softplus", True),
    ((2, 6, 6, 1), "relu", True),
    ((4, 3, 3, 2), "tanh", False),
]


def chain(widths, activation, use_bias=True):
    inputs = keras.Input((widths[0],))
    h = inputs
    for width in widths[1:-1]:
        h = layers.Dense(width, activation=activation, use_bias=use_bias)(h)
    return keras.Model(inputs, layers.Dense(widths[-1], use_bias=use_bias)(h))


@functools.cache
def network(index):
    """The Keras model of an architecture, in float64, made once; the loss is half a square."""
    use_float64()
    model = chain(*ARCHITECTURES[index])
    model.compile(loss=lambda y, z: keras.ops.sum(keras.ops.square(z - y), axis=-1) / 2)
    return model


class Oracle:
    """The same network in NumPy, by the formulas of backpropagation.

    Attributes:
        kernels, biases: Of each layer, biases zero where there are none.
        jacobians: Of the input of each layer and of the output by the input of the network,
            `(samples, ..., inputs)`.
        deltas: The gradient of the loss by the pre-activations of each layer.
    """

    def __init__(self, widths, activation, use_bias, weights, x, y):
        function, derivative = ACTIVATIONS[activation]
        step = 2 if use_bias else 1
        self.kernels = weights[::step]
        self.biases = weights[1::2] if use_bias else [np.zeros(w) for w in widths[1:]]
        self.inputs, slopes = [x], []
        self.jacobians = [np.broadcast_to(np.eye(widths[0]), (len(x), widths[0], widths[0]))]
        last = len(self.kernels) - 1
        for index, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            z = self.inputs[-1] @ kernel + bias
            slopes.append(np.ones_like(z) if index == last else derivative(z))
            self.inputs.append(z if index == last else function(z))
            self.jacobians.append(slopes[-1][:, :, None] * (kernel.T @ self.jacobians[-1]))
        self.deltas = [self.inputs[-1] - y]
        for kernel, factor in zip(self.kernels[:0:-1], slopes[-2::-1], strict=True):
            self.deltas.insert(0, (self.deltas[0] @ kernel.T) * factor)

    @property
    def gbr(self):
        return (self.jacobians[-1] ** 2).sum((1, 2)).mean()

    def sides(self, use_bias):
        """Both sides of the transfer inequality, `(samples, layers)`, with norms by the SVD."""
        gradient = np.einsum("no,noi->ni", self.deltas[-1], self.jacobians[-1])
        left, right = [], []
        for kernel, h, jacobian, delta in zip(
            self.kernels, self.inputs, self.jacobians, self.deltas, strict=False
        ):
            by_kernel = h[:, :, None] * delta[:, None, :]
            right.append((by_kernel**2).sum((1, 2)) + use_bias * (delta**2).sum(1))
            scale = np.linalg.svd(kernel, compute_uv=False)[0] ** 2 * (
                np.linalg.svd(jacobian, compute_uv=False)[:, 0] ** 2
            )
            numerator = (gradient**2).sum(1) * (use_bias + (h**2).sum(1))
            left.append(np.divide(numerator, scale, out=0 * scale, where=scale > 0))
        return np.stack(left, axis=1), np.stack(right, axis=1)


# The mathematics is the same on all backends, so one is enough to look for exceptions.
@settings(max_examples=1000 if BACKEND == "tensorflow" else 100)
@given(
    st.integers(0, len(ARCHITECTURES) - 1),
    st.integers(0, 2**32 - 1),
    st.floats(0.05, 4.0),
)
def test_bound_and_transfer_hold_and_agree_with_numpy(index, seed, scale):
    use_float64()
    model, rng = network(index), np.random.default_rng(seed)
    weights = [scale * rng.standard_normal(w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    widths, activation, use_bias = ARCHITECTURES[index]
    x = rng.standard_normal((SAMPLES, widths[0]))
    y = rng.standard_normal((SAMPLES, widths[-1]))
    oracle = Oracle(widths, activation, use_bias, weights, x, y)
    bound = gbr.measures.weight_bound(model)
    norms = [np.linalg.norm(kernel) ** 2 for kernel in oracle.kernels]
    np.testing.assert_allclose(bound, (np.prod(norms), np.mean(norms) ** len(norms)), rtol=1e-12)
    # Equalities, as for one layer, hold up to rounding.
    assert oracle.gbr <= bound.product * (1 + 1e-12)
    assert bound.product <= bound.mean_power * (1 + 1e-12)
    sides = gbr.measures.gradient_transfer(model, x, y)
    left, right = oracle.sides(use_bias)
    # For an inactive unit both are rounding: hence the absolute tolerance.
    np.testing.assert_allclose(sides.layer_left, left, rtol=1e-7, atol=1e-12 * right.max())
    np.testing.assert_allclose(sides.layer_right, right, rtol=1e-7, atol=1e-12 * right.max())
    assert np.all(sides.layer_left <= sides.layer_right * (1 + 1e-9))
    assert np.all(sides.left <= sides.right * (1 + 1e-9))


def test_one_linear_layer_has_the_gbr_that_its_weights_allow():
    use_float64()
    model = chain((5, 3), "linear")
    bound = gbr.measures.weight_bound(model)
    assert bound.product == bound.mean_power
    x, _ = batch((5,))
    assert gbr.measures.gbr(model, x) == pytest.approx(bound.product, rel=1e-13)


def test_two_aligned_layers_of_rank_one_reach_the_bound_too():
    """The product of norms is reached if every kernel passes on only one direction."""
    use_float64()
    model = chain((5, 4, 3), "linear")
    u, v, w = (np.random.default_rng(n).standard_normal(n) for n in (5, 4, 3))
    model.set_weights([np.outer(u, v), np.zeros(4), np.outer(v, w), np.zeros(3)])
    x, _ = batch((5,))
    bound = gbr.measures.weight_bound(model)
    assert gbr.measures.gbr(model, x) == pytest.approx(bound.product, rel=1e-12)


def test_transfer_is_an_equality_for_one_unit():
    """With f = w x + b the sides are |w|^2 (1 + |x|^2) / |w|^2 and |x|^2 + 1."""
    use_float64()
    model = chain((5, 1), "linear")
    x, _ = batch((5,))
    sides = gbr.measures.gradient_transfer(model, x)
    expected = 1 + (x**2).sum(1)
    np.testing.assert_allclose(sides.left, expected, rtol=1e-13)
    np.testing.assert_allclose(sides.right, expected, rtol=1e-13)
    bare = chain((5, 1), "linear", use_bias=False)
    sides = gbr.measures.gradient_transfer(bare, x)
    np.testing.assert_allclose(sides.left, (x**2).sum(1), rtol=1e-13)
    np.testing.assert_allclose(sides.right, (x**2).sum(1), rtol=1e-13)


def test_sides_agree_with_differences_of_the_loss():
    """The right side is the squared gradient by the weights, the left has that by the input."""
    use_float64()
    inputs = keras.Input((2, 3))
    h = layers.Dropout(0.5)(layers.Flatten()(inputs))
    h = gbr.Regularized(layers.Dense(3, activation="gelu", name="a"), "l2", name="a")(h)
    h = layers.Reshape((3,))(layers.Activation("tanh")(layers.Dense(3, name="b")(h)))
    model = keras.Model(inputs, keras.Sequential([layers.Dense(2, name="c")], name="top")(h))
    model.compile(loss=logits_loss())
    x, y = batch((2, 3), samples=3, classes=2)
    sides = gbr.measures.gradient_transfer(model, x, y)
    assert sides.layers == ("a", "b", "top/c")
    one = (x[:1], y[:1])
    squares = np.zeros(3)
    for index, variable in enumerate(model.trainable_variables):
        for entry in np.ndindex(*variable.shape):
            direction = np.zeros(tuple(variable.shape))
            direction[entry] = 1.0
            squares[index // 2] += slope(lambda: loss(model, *one), [variable], [direction]) ** 2
    np.testing.assert_allclose(sides.layer_right[0], squares, rtol=1e-6)
    gradients = jacobians(lambda x: losses(model, x, y), x)[:, 0]
    scale = np.linalg.norm(model.get_weights()[0], 2) ** 2
    expected = (gradients**2).sum(1) * (1 + (x**2).sum((1, 2))) / scale
    np.testing.assert_allclose(sides.layer_left[:, 0], expected, rtol=1e-6)
    assert np.all(sides.layer_left <= sides.layer_right)
    whole = gbr.measures.gradient_transfer(model, x, y, batch_size=2)
    np.testing.assert_allclose(whole.layer_left, sides.layer_left, rtol=1e-12)


def losses(model, x, y):
    z = predictions(model, x)
    return np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]


def loss(model, x, y):
    return losses(model, x, y).sum()


def test_wrapped_layers_count_with_the_kernels_that_they_compute_with():
    inputs = keras.Input((6,))
    h = gbr.ENCDense(layers.Dense(5, activation="relu"), alpha=3.0)(inputs)
    model = keras.Model(inputs, gbr.Regularized(gbr.ENC(layers.Dense(2), alpha=0.5), "l2")(h))
    # 3 * 0.5 and ((3 + 0.5) / 2)^2, whatever the weights, to single precision.
    bound = gbr.measures.weight_bound(model)
    assert bound == pytest.approx((1.5, 1.75**2), rel=1e-5)
    x, y = batch((6,), samples=20, classes=2)
    assert gbr.measures.gbr(model, x) <= bound.product
    model.compile(loss=logits_loss())
    sides = gbr.measures.gradient_transfer(model, x, y)
    assert np.all(sides.layer_left <= sides.layer_right * (1 + 1e-5))  # single precision


def test_chains_of_every_make():
    """Sequential without Input, nested, activations as layers, an inactive dropout."""
    inner = keras.Sequential([layers.Dense(4), layers.LeakyReLU(0.3), layers.Dropout(0.9)])
    model = keras.Sequential([layers.Flatten(), inner, layers.Dense(3, activation="softmax")])
    x, _ = batch((2, 3), samples=5)
    model(x.astype("float32"))
    kernels = [w for w in model.get_weights() if w.ndim == 2]
    bound = gbr.measures.weight_bound(model)
    assert bound.product == pytest.approx(np.prod([(k**2).sum() for k in kernels]), rel=1e-6)
    assert gbr.measures.gbr(model, x) <= bound.product


def test_a_dead_network_has_nothing_to_transfer():
    model = chain((3, 4, 1), "relu")
    model.set_weights([np.ones((3, 4)), np.full(4, -100.0), np.ones((4, 1)), np.zeros(1)])
    sides = gbr.measures.gradient_transfer(model, np.ones((2, 3)))
    np.testing.assert_array_equal(sides.layer_left, 0)
    np.testing.assert_array_equal(sides.right, 1)  # the bias of the output


def test_a_bound_beyond_the_largest_float_is_infinite():
    model = chain((2, *[2] * 9, 1), "relu")
    model.set_weights([w + 1e18 for w in model.get_weights()])
    assert gbr.measures.weight_bound(model) == (np.inf, np.inf)


@in_double_precision
@pytest.mark.parametrize("name", [name for name in dir(activations) if name.islower()])
def test_only_activations_that_shorten_distances_are_taken(name):
    function = getattr(activations, name)
    if name.startswith("_") or name in ("get", "serialize", "deserialize"):
        return
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    model.layers[0].activation = function
    with contextlib.suppress(ValueError):
        gbr.measures.weight_bound(model)
        check_lengths(function)


def check_lengths(function):
    rng = np.random.default_rng(0)
    for size in (0.1, 1.0, 10.0):
        u = size * rng.standard_normal((2000, 4))
        v = u + 10.0 ** rng.uniform(-4, 1, (2000, 1)) * rng.standard_normal((2000, 4))
        images = [to_numpy(function(keras.ops.convert_to_tensor(z))) for z in (u, v)]
        longest = np.linalg.norm(images[0] - images[1], axis=1) / np.linalg.norm(u - v, axis=1)
        assert longest.max() <= 1 + 1e-9


@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "softplus", "sigmoid", "softmax"])
def test_common_activations_are_taken(name):
    gbr.measures.weight_bound(keras.Sequential([keras.Input((4,)), layers.Dense(4, name)]))


class Doubling(layers.Dense):
    def call(self, x):
        return 2 * super().call(x)


class ActiveDropout(layers.Dropout):
    def call(self, x, training=None):
        return super().call(x, training=True)


class OwnCall(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


FLAT = layers.Flatten
# What follows an input (1, 3), the layer that the error names, and its reason.
BROKEN = {
    "convolution": (lambda x: FLAT()(layers.Conv1D(2, 1, name="a")(x)), "a", "unrolled"),
    "wrapped convolution": (
        lambda x: FLAT()(gbr.ENC(layers.Conv1D(2, 1), name="a")(x)),
        "a",
        "unrolled",
    ),
    "normalisation": (lambda x: layers.BatchNormalization(name="a")(FLAT()(x)), "a", "scales by"),
    "rescaling": (lambda x: FLAT()(layers.Rescaling(2.0, name="a")(x)), "a", "scales by"),
    "branches": (
        lambda x: layers.Add(name="a")([FLAT()(x), layers.Dense(3)(FLAT()(x))]),
        "a",
        "joins branches",
    ),
    "operation": (lambda x: keras.ops.sin(FLAT()(x)), "sin.*", "operation and not a layer"),
    "steps": (lambda x: FLAT()(layers.Dense(2, name="a")(x)), "a", "many places"),
    "recurrent": (lambda x: layers.LSTM(2, name="a")(x), "a", "not known"),
    "attention": (lambda x: FLAT()(layers.MultiHeadAttention(1, 2, name="a")(x, x)), "a", ""),
    "own dense": (lambda x: Doubling(2, name="a")(FLAT()(x)), "a", "of its own in `call`"),
    "own dropout": (lambda x: ActiveDropout(0.5, name="a")(FLAT()(x)), "a", "not known"),
    "active dropout": (
        lambda x: layers.Dropout(0.5, name="a")(FLAT()(x), training=True),
        "a",
        "training=True",
    ),
    "foreign wrapper": (
        lambda x: layers.SpectralNormalization(layers.Dense(2), name="a")(FLAT()(x)),
        "a",
        "scales by",
    ),
    "subclassed model": (lambda x: OwnCall()(FLAT()(x)), "own", "does not show"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("measure", ["weight_bound", "gradient_transfer"])
def test_what_breaks_a_chain_is_refused_by_name(measure, case):
    build, name, reason = BROKEN[case]
    inputs = keras.Input((1, 3))
    model = keras.Model(inputs, layers.Dense(1)(build(inputs)))
    data = [np.zeros((2, 1, 3))] if measure == "gradient_transfer" else []
    with pytest.raises(ValueError, match=rf"layer '{name}' breaks it.*{reason}.*Received: layer"):
        getattr(gbr.measures, measure)(model, *data)


@pytest.mark.parametrize(
    "activation",
    [
        *("gelu", "silu", "selu", "mish", "exponential", "log_softmax", lambda x: x),
        *(layers.LeakyReLU(1.5), layers.ReLU(threshold=1.0), layers.ELU(2.0)),
    ],
)
def test_only_the_bound_refuses_activations_that_lengthen(activation):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(3, activation, name="a")(inputs)))
    with pytest.raises(ValueError, match=r"layer 'a' breaks it.*1-Lipschitz"):
        gbr.measures.weight_bound(model)
    sides = gbr.measures.gradient_transfer(model, batch((3,))[0])
    assert np.all(sides.layer_left <= sides.layer_right * (1 + 1e-5))


def test_only_the_transfer_refuses_a_layer_that_is_used_twice():
    inputs = keras.Input((3,))
    layer = layers.Dense(3, name="a")
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(layer(layer(inputs))))
    kernels = [(w**2).sum() for w in model.get_weights() if w.ndim == 2]
    bound = gbr.measures.weight_bound(model)
    assert bound.product == pytest.approx(kernels[0] ** 2 * kernels[1], rel=1e-6)
    with pytest.raises(ValueError, match="layer 'a' breaks it: it is used twice"):
        gbr.measures.gradient_transfer(model, np.zeros((2, 3)))


def test_models_without_a_chain_and_data_that_do_not_fit():
    a, b = keras.Input((3,)), keras.Input((3,))
    with pytest.raises(ValueError, match="several inputs or outputs"):
        gbr.measures.weight_bound(keras.Model([a, b], layers.Dense(1)(layers.Add()([a, b]))))
    with pytest.raises(ValueError, match="must have a dense layer"):
        gbr.measures.weight_bound(keras.Model(a, layers.Activation("relu")(a)))
    with pytest.raises(ValueError, match="must be a built"):
        gbr.measures.weight_bound(keras.Sequential([layers.Dense(2)]))
    model = chain((3, 2), "tanh")
    with pytest.raises(ValueError, match=r"must be one unit.*Received: output shape"):
        gbr.measures.gradient_transfer(model, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="compile the model with a `loss`"):
        gbr.measures.gradient_transfer(model, np.zeros((4, 3)), np.zeros(4))
    with pytest.raises(ValueError, match="`y` must have one entry for each of the 4"):
        gbr.measures.gradient_transfer(model, np.zeros((4, 3)), np.zeros(3))
