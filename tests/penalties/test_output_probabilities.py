"""What the outputs hold, probabilities or logits, by the model's last activation."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from support import loss_references as references
from support.loss_checks import set_weights
from support.loss_references import CLASSES, FEATURES, HIDDEN, log_sigmoid, log_softmax
from support.networks import jacobians, use_float64, values

pytestmark = pytest.mark.jax

X = references.inputs()


def own_loss(y, u):
    return ops.mean(ops.square(ops.cast(y, u.dtype) - u), axis=-1)


# Losses that do not say whether they take logits or probabilities, and their labels.
SILENT = {
    "kl_divergence": ("kl_divergence", "distribution"),
    "dice": (keras.losses.Dice(axis=-1), "one-hot"),
    "tversky": (keras.losses.Tversky(axis=-1), "one-hot"),
    "generalized": (keras.losses.CategoricalGeneralizedCrossEntropy(), "sparse"),
    "mse": ("mse", "one-hot"),
    "own": (own_loss, "one-hot"),
    "none": (None, "one-hot"),
}
SAYING = {
    head: {
        "sparse": (keras.losses.SparseCategoricalCrossentropy(from_logits=logits), "sparse"),
        "one-hot": (keras.losses.CategoricalCrossentropy(from_logits=logits), "one-hot"),
    }
    for head, logits in (("linear", True), ("softmax", False))
}
HEADS = {
    "linear": lambda h: layers.Dense(CLASSES)(h),
    "softmax": lambda h: layers.Dense(CLASSES, activation="softmax")(h),
    "activation": lambda h: layers.Activation("softmax")(layers.Dense(CLASSES)(h)),
    "layer": lambda h: layers.Softmax()(layers.Dense(CLASSES)(h)),
    "operation": lambda h: ops.softmax(layers.Dense(CLASSES)(h)),
    "in double precision": lambda h: layers.Activation("softmax", dtype="float64")(
        layers.Dense(CLASSES)(h)
    ),
    "reshaped": lambda h: layers.Reshape((CLASSES,))(layers.Softmax()(layers.Dense(CLASSES)(h))),
    "in a model": lambda h: keras.Sequential([layers.Dense(CLASSES, activation="softmax")])(h),
}


def network(head):
    x = keras.Input((FEATURES,))
    return gbr.GBRModel(x, head(layers.Dense(HIDDEN, activation="tanh")(x)))


def logits(arrays, x):
    kernel, bias, last, shift = arrays
    return np.tanh(x @ kernel + bias) @ last + shift


def probabilities(arrays, x):
    return np.exp(log_softmax(logits(arrays, x)))


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


def check(model, loss, y, reference, classes, labels=None):
    """Both penalties that take probabilities, against the Jacobian of the true ones."""
    true = jacobians(reference, X)
    penalty = gbr.Jacobian(1.0, num_projections=None, of="probabilities")
    found = values(model, penalty, X, y, loss)
    np.testing.assert_allclose(found, (true**2).sum((1, 2)), rtol=1e-6)
    found = values(model, gbr.InputGradient(1.0, of="label_probability"), X, y, loss)
    labels = classes if labels is None else labels
    rows = true[:, 0] if true.shape[1] == 1 else (np.asarray(labels)[..., None] * true).sum(1)
    np.testing.assert_allclose(found, (rows**2).sum(1), rtol=1e-6)


CASES = [
    *[(head, loss, SILENT[loss]) for head in ("linear", "softmax") for loss in SILENT],
    *[(head, loss, SILENT[loss]) for head in list(HEADS)[2:] for loss in ("mse", "none")],
    *[(head, loss, given) for head, said in SAYING.items() for loss, given in said.items()],
]


@pytest.mark.parametrize(
    ("head", "given"),
    [pytest.param(head, given, id=f"{head}-{loss}") for head, loss, given in CASES],
)
def test_the_probabilities_of_classes(head, given):
    use_float64()
    loss, kind = given
    y = references.labels(kind)
    arrays = references.weights()
    model = network(HEADS[head])
    set_weights(model, flat(arrays))
    one_hot = references.one_hot(y) if kind == "sparse" else y
    check(model, loss, y, lambda x: probabilities(arrays, x), one_hot)


@pytest.mark.parametrize("head", ["linear", "sigmoid"])
@pytest.mark.parametrize("loss", ["mse", "binary", own_loss, None])
def test_the_probability_of_one_unit(head, loss):
    use_float64()
    y = references.labels("binary")[:, :1]
    arrays = references.weights((1,))
    model = network(lambda h: layers.Dense(1, activation=head)(h))
    set_weights(model, flat(arrays))
    if loss == "binary":
        loss = keras.losses.BinaryCrossentropy(from_logits=head == "linear")
    check(model, loss, y, lambda x: np.exp(log_sigmoid(logits(arrays, x))), y)


@pytest.mark.parametrize("loss", ["kl_divergence", "mse"])
def test_sigmoids_of_several_units_are_probabilities(loss):
    use_float64()
    y = references.labels("one-hot")
    arrays = references.weights()
    model = network(lambda h: layers.Dense(CLASSES, activation="sigmoid")(h))
    set_weights(model, flat(arrays))
    check(model, loss, y, lambda x: np.exp(log_sigmoid(logits(arrays, x))), y)


class Subclassed(gbr.GBRMixin, keras.Model):
    """A model of which only the `call` shows what its outputs are."""

    def __init__(self, activation):
        super().__init__()
        self.first = layers.Dense(HIDDEN, activation="tanh")
        self.last = layers.Dense(CLASSES)
        self.function = keras.activations.get(activation)

    def call(self, x):
        return self.function(self.last(self.first(x)))


PENALTIES = {
    "jacobian": lambda: gbr.Jacobian(1.0, of="probabilities"),
    "label": lambda: gbr.InputGradient(1.0, of="label_probability"),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("loss", ["mse", "kl_divergence"])
@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_outputs_that_may_be_either_are_refused(activation, loss, penalty):
    model = Subclassed(activation)
    model.compile("sgd", loss, penalties=[PENALTIES[penalty]()])
    model(X)
    before = model.get_weights()
    with pytest.raises(ValueError, match='of="output"' if penalty == "jacobian" else "of="):
        model.fit(X, references.labels("one-hot"), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_a_crossentropy_says_what_the_outputs_are(activation):
    use_float64()
    y = references.labels("sparse")
    arrays = references.weights()
    model = Subclassed(activation)
    model(X)
    set_weights(model, flat(arrays))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation == "linear")
    check(model, loss, y, lambda x: probabilities(arrays, x), references.one_hot(y))
