"""The ways from a model to its loss: what makes the probabilities, how many outputs there are."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from support import loss_references as references
from support.calls import BACKEND, STEPS
from support.loss_checks import EAGERLY, check_step, check_values, set_weights
from support.loss_references import CLASSES, FEATURES, HIDDEN, SAMPLES, Net, Outputs
from support.networks import use_float64

pytestmark = pytest.mark.jax

X = references.inputs()
SPARSE = references.labels("sparse", (SAMPLES, 1))
ONE_HOT = references.labels("one-hot", (SAMPLES, 1))
YES = references.labels("binary", (SAMPLES, 1))[..., :1]
REAL = references.labels("distribution", (SAMPLES, 1))


def crossentropy(heads, head="softmax"):
    return references.sparse_categorical_crossentropy(SPARSE, Outputs(heads[0], head))


def hidden(x):
    return layers.Dense(HIDDEN, activation="tanh")(x)


def network(*heads):
    """A model of heads: functions of the hidden layer, or their activations."""
    x = keras.Input((FEATURES,))
    h = hidden(x)
    heads = [head if callable(head) else layers.Dense(CLASSES, activation=head) for head in heads]
    outputs = [head(h) for head in heads]
    return gbr.GBRModel(x, outputs[0] if len(outputs) == 1 else outputs)


def checked(model, loss, net, y, x=X, run=check_step, **settings):
    if run is check_step:
        settings.setdefault("run_eagerly", EAGERLY)
    set_weights(model, net.theta)
    x_of_net = x.reshape(SAMPLES, -1, FEATURES)
    weight = settings.get("sample_weight")
    expected = references.penalties(net, x_of_net, weight)
    run(model, loss, expected, x, y, **settings)


class OwnSoftmax(layers.Layer):
    def call(self, z):
        e = ops.exp(z - ops.max(z, axis=-1, keepdims=True))
        return e / ops.sum(e, axis=-1, keepdims=True)


class Subclassed(gbr.GBRMixin, keras.Model):
    """The softmax is taken where no graph shows it."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(HIDDEN, activation="tanh")
        self.last = layers.Dense(CLASSES)

    def call(self, x):
        return ops.softmax(self.last(self.first(x)))


SOFTMAXES = {
    "activation": lambda z: layers.Activation("softmax")(z),
    "layer": lambda z: layers.Softmax()(z),
    "operation": lambda z: ops.softmax(z),
    "operation on the first axis of a transposed": lambda z: ops.transpose(
        layers.Softmax(axis=1)(layers.Reshape((CLASSES, 1))(z)), (0, 2, 1)
    )[:, 0],
    "then a reshape": lambda z: layers.Reshape((CLASSES,))(layers.Softmax()(z)),
    "then a flattening": lambda z: layers.Flatten()(layers.Softmax()(z)),
    "then no dropout": lambda z: layers.Dropout(0.0)(layers.Softmax()(z)),
    "then an identity": lambda z: layers.Identity()(layers.Softmax()(z)),
    "then a function": lambda z: layers.Lambda(lambda p: p)(layers.Softmax()(z)),
    "then a cast": lambda z: ops.cast(layers.Softmax()(z), "float64"),
    "within a model": lambda z: keras.Sequential([layers.Softmax()])(z),
    "of one's own": lambda z: OwnSoftmax()(z),
}


@pytest.mark.parametrize("way", SOFTMAXES)
def test_where_the_softmax_is(way):
    use_float64()
    model = network(lambda h: SOFTMAXES[way](layers.Dense(CLASSES)(h)))
    net = Net(references.weights(), crossentropy)
    checked(model, "sparse_categorical_crossentropy", net, SPARSE[:, 0])


@pytest.mark.parametrize("step", STEPS)
def test_ways_of_running(step):
    """The most ordinary classifier, in every kind of step."""
    use_float64()
    net = Net(references.weights(), crossentropy)
    loss = "sparse_categorical_crossentropy"
    checked(network("softmax"), loss, net, SPARSE[:, 0], **{"run_eagerly": False} | STEPS[step])


def test_a_softmax_in_a_subclassed_model():
    use_float64()
    model = Subclassed()
    model(X)
    net = Net(references.weights(), crossentropy)
    checked(model, "sparse_categorical_crossentropy", net, SPARSE[:, 0])


def test_a_softmax_with_a_temperature():
    use_float64()
    net = Net(references.weights(), lambda heads: crossentropy([heads[0] / 2.5]))
    model = network(lambda h: layers.Softmax()(layers.Dense(CLASSES)(h) / 2.5))
    checked(model, "sparse_categorical_crossentropy", net, SPARSE[:, 0])


@pytest.mark.parametrize("head", ["linear", "sigmoid"])
@pytest.mark.parametrize("name", ["BinaryCrossentropy", "BinaryFocalCrossentropy"])
def test_one_unit(name, head):
    use_float64()
    function = references.LOSSES[name].value
    logits = head == "linear"
    net = Net(
        references.weights((1,)), lambda heads: function(YES, Outputs(heads[0], head), logits)
    )
    model = network(lambda h: layers.Dense(1, activation=head)(h))
    loss = getattr(keras.losses, name)(from_logits=logits)
    checked(model, loss, net, YES[:, 0, 0])


def test_sample_weights():
    use_float64()
    net = Net(references.weights(), crossentropy)
    weight = np.array([0.5, 2.0, 0.0, 1.5])
    loss = "sparse_categorical_crossentropy"
    checked(network("softmax"), loss, net, SPARSE[:, 0], sample_weight=weight)


@pytest.mark.parametrize("head", ["linear", "softmax"])
def test_a_sum_of_losses(head):
    """Part of the way goes through the outputs and part may look behind them."""
    use_float64()

    def loss(y, u):
        logits = head == "linear"
        first = keras.losses.categorical_crossentropy(y, u, from_logits=logits)
        return first + keras.losses.dice(y, ops.softmax(u) if logits else u, axis=-1)

    def value(heads):
        out = Outputs(heads[0], "softmax")
        return references.categorical_crossentropy(
            ONE_HOT, out, head == "linear"
        ) + references.dice(ONE_HOT, out)

    net = Net(references.weights(), value)
    checked(network(head), loss, net, ONE_HOT[:, 0])


def two_values(heads, first="softmax"):
    one = references.sparse_categorical_crossentropy(SPARSE, Outputs(heads[0], first))
    return 0.5 * one + 2.0 * references.mean_squared_error(REAL, Outputs(heads[1], "linear"))


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_two_outputs(kind):
    use_float64()
    net = Net(references.weights((CLASSES, CLASSES)), two_values)
    names = ("classes", "numbers")
    losses, factors = ("sparse_categorical_crossentropy", "mse"), (0.5, 2.0)
    y = (SPARSE[:, 0], REAL[:, 0])
    if kind == "list":
        model = network("softmax", "linear")
        losses, factors, y = (list(given) for given in (losses, factors, y))
    else:
        x = keras.Input((FEATURES,))
        h = hidden(x)
        made = [layers.Dense(CLASSES, activation=a) for a in ("softmax", None)]
        model = gbr.GBRModel(x, {name: layer(h) for name, layer in zip(names, made, strict=True)})
        losses, factors, y = (
            dict(zip(names, given, strict=True)) for given in (losses, factors, y)
        )
    set_weights(model, net.theta)
    checked(model, losses, net, y, loss_weights=factors)


def test_two_outputs_that_look_behind():
    """A softmax and a sigmoid of the same hidden layer."""
    use_float64()

    def value(heads):
        one = references.categorical_crossentropy(ONE_HOT, Outputs(heads[0], "softmax"))
        return one + references.binary_crossentropy(YES, Outputs(heads[1], "sigmoid"))

    net = Net(references.weights((CLASSES, 1)), value)
    model = network("softmax", lambda h: layers.Dense(1, activation="sigmoid")(h))
    losses = ["categorical_crossentropy", "binary_crossentropy"]
    checked(model, losses, net, [ONE_HOT[:, 0], YES[:, 0]])


def test_an_output_without_a_loss():
    """The second output has none, and the same layer behind it."""
    use_float64()
    net = Net(references.weights(), crossentropy)
    model = network("softmax")
    both = gbr.GBRModel(model.inputs, [model.outputs[0], model.layers[1].output])
    checked(both, ["sparse_categorical_crossentropy", None], net, [SPARSE[:, 0], None])


@pytest.mark.parametrize(
    ("head", "ignored"),
    [
        ("linear", 1),
        ("softmax", None),
        pytest.param(
            "softmax",
            1,
            marks=pytest.mark.skipif(
                BACKEND == "torch", reason="PyTorch's own gradient fails, without penalties too"
            ),
        ),
    ],
)
def test_each_pixel(head, ignored):
    """A map of classes: 1 x 1 convolutions and a softmax for each pixel."""
    use_float64()
    y = np.random.default_rng(1).permuted(np.tile([0, 1, 2, 2], (SAMPLES, 1)), axis=1)
    logits = head == "linear"

    def value(heads):
        out = Outputs(heads[0], head)
        values = references.sparse_categorical_crossentropy(y, out, logits, ignored)
        return values * (1 if ignored is None else 4 / 3)  # the mean over those that count

    x = keras.Input((2, 2, FEATURES))
    h = layers.Conv2D(HIDDEN, 1, activation="tanh")(x)
    model = gbr.GBRModel(x, layers.Conv2D(CLASSES, 1, activation=head)(h))
    net = Net(references.weights(), value)
    if ignored is None:
        loss, y_given = "categorical_crossentropy", references.one_hot(y)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(logits, ignore_class=ignored)
        y_given = y
    y_given = y_given.reshape(SAMPLES, 2, 2, *y_given.shape[2:])
    checked(model, loss, net, y_given, references.inputs((2, 2)))


def test_a_head_in_single_precision():
    """Under mixed precision, as Keras' guide has it; bfloat16 has 8 bits."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    net = Net(references.weights(), crossentropy)
    model = network(
        lambda h: layers.Activation("softmax", dtype="float32")(layers.Dense(CLASSES)(h))
    )
    loss = "sparse_categorical_crossentropy"
    checked(model, loss, net, SPARSE[:, 0], X.astype("float32"), run=check_values, rtol=0.05)
