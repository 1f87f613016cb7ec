"""The penalties on every loss of Keras, against NumPy's loss of the whole model."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support import loss_references as references
from support.calls import BACKEND
from support.catalogue import thinned
from support.loss_checks import EAGERLY, check_step, check_values, flat_weights, set_weights
from support.loss_references import LOSSES, OTHERS, Net, Outputs, function_name
from support.networks import use_float64

pytestmark = pytest.mark.jax

HEADS = ("linear", "softmax", "sigmoid")
X = references.inputs()


def own_head(name):
    """The head that a crossentropy is meant for; those of other losses take turns."""
    if LOSSES[name].crossentropy:
        return "sigmoid" if name.startswith("Binary") else "softmax"
    return HEADS[list(LOSSES).index(name) % 3]


OWN = [(name, own_head(name)) for name in LOSSES]
CROSSED = [(name, head) for name in LOSSES for head in HEADS if head != own_head(name)]
heads = pytest.mark.parametrize(("name", "head"), [*OWN, *thinned(CROSSED, step=3)])


def losses_of_keras():
    """The names of the classes and of the functions in `keras.losses`."""
    public = {k: v for k, v in vars(keras.losses).items() if not k.startswith("_")}
    classes = {k for k, v in public.items() if inspect.isclass(v)} - {"Loss"}
    functions = {k for k, v in public.items() if inspect.isfunction(v)}
    return classes, functions - {"get", "serialize", "deserialize"}


def test_the_table_has_every_loss_of_keras():
    classes, functions = losses_of_keras()
    assert classes == LOSSES.keys() | OTHERS
    assert functions == {function_name(name) for name in classes}


def arranged(name, head, config, scale=1.0):
    """A NumPy net, the labels and the configuration for a loss on a head."""
    reference = LOSSES[name]
    y = references.labels(reference.labels, (references.SAMPLES, 1))
    config = reference.config | config
    own = {k: v for k, v in config.items() if k != "axis"}
    if reference.crossentropy and head == "linear":
        own["from_logits"] = config["from_logits"] = True
    net = Net(
        references.weights(positive=reference.positive and head == "linear", scale=scale),
        lambda heads: reference.value(y, Outputs(heads[0], head), **own),
    )
    return net, y[:, 0], config


def model_of(net, head):
    """The same net as a model."""
    inputs = keras.Input((references.FEATURES,))
    hidden = layers.Dense(references.HIDDEN, activation="tanh")(inputs)
    model = gbr.GBRModel(inputs, layers.Dense(references.CLASSES, activation=head)(hidden))
    set_weights(model, net.theta)
    return model


def forms(name, config):
    """The ways to give a loss to `compile`: as an object, and by name or as a function."""
    made = getattr(keras.losses, name)(**config)
    if config:
        function = getattr(keras.losses, function_name(name))
        return {"object": made, "function": lambda y, u: function(y, u, **config)}
    function = function_name(name)
    return {"object": made, "name": function, "function": getattr(keras.losses, function)}


def rotated(name, head):
    """How a loss on a head is run and given: compiled for one head of each, eager for the others.

    Compiling takes most of the time. Crossentropies are compiled for the head that they are for.
    """
    row = list(LOSSES).index(name)
    eagerly = {} if head == own_head(name) or BACKEND == "jax" else {"run_eagerly": True}
    return eagerly, row + HEADS.index(head)


@heads
def test_a_loss_by_name(name, head):
    """Values in single precision, as `fit` logs them, of a loss by name or as a function."""
    net, y, config = arranged(name, head, {})
    settings, turn = rotated(name, head)
    given = list(forms(name, config).values())[1:]
    expected = references.penalties(net, X[:, None])
    check_values(model_of(net, head), given[turn % len(given)], expected, X, y, **settings)


@heads
def test_a_loss_as_an_object(name, head):
    """Values and gradients in double precision."""
    use_float64()
    net, y, config = arranged(name, head, {})
    given = forms(name, config)["object"]
    expected = references.penalties(net, X[:, None])
    check_step(model_of(net, head), given, expected, X, y, run_eagerly=EAGERLY)


@pytest.mark.parametrize(
    ("name", "config"), [(name, config) for name in LOSSES for config in LOSSES[name].variants]
)
def test_a_loss_with_other_settings(name, config):
    use_float64()
    head = "sigmoid" if name.startswith("Binary") else "softmax"
    net, y, config = arranged(name, head, config)
    given = forms(name, config)["object"]
    expected = references.penalties(net, X[:, None])
    check_step(model_of(net, head), given, expected, X, y, run_eagerly=EAGERLY)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *[(name, "softmax") for name in ("CategoricalCrossentropy", "KLDivergence")],
        *[("SparseCategoricalCrossentropy", head) for head in ("linear", "softmax")],
        *[("BinaryCrossentropy", head) for head in ("linear", "sigmoid")],
    ],
)
def test_saturated_outputs(name, head):
    """The right value is that of the loss that is trained, where TensorFlow does not clip."""
    use_float64()
    net, y, config = arranged(name, head, {}, scale=30.0)
    if head != "linear":
        (z,) = net.heads(net.theta, X[:, None])
        assert Outputs(z, head).u.max() > 1 - references.SMALLEST
    given = forms(name, config)["object"]
    expected = references.penalties(net, X[:, None])
    model = model_of(net, head)
    check_step(model, given, expected, X, y, run_eagerly=EAGERLY)


@pytest.mark.parametrize("loss", ["dice", "tversky", keras.losses.Dice(), keras.losses.Tversky()])
def test_one_number_for_a_batch_is_refused(loss):
    """By default the losses of regions sum over the samples."""
    net, _, _ = arranged("Dice", "softmax", {})
    model = model_of(net, "softmax")
    model.compile("sgd", loss, penalties=[gbr.InputGradient(1.0)])
    before = flat_weights(model)
    with pytest.raises(ValueError, match=r"shape \(batch_size,\)"):
        model.fit(X, references.labels("one-hot"), verbose=0)
    np.testing.assert_array_equal(flat_weights(model), before)


@pytest.mark.parametrize("loss", ["circle", keras.losses.Circle()])
@pytest.mark.parametrize("penalty", [gbr.InputGradient, lambda w: gbr.Adversarial(w, 0.1)])
def test_a_loss_that_compares_samples_is_refused(loss, penalty):
    net, _, _ = arranged("Dice", "softmax", {})
    model = model_of(net, "softmax")
    model.compile("sgd", loss, penalties=[penalty(1.0)], run_eagerly=EAGERLY)
    before = flat_weights(model)
    with pytest.raises(ValueError, match="circle loss compares the samples"):
        model.fit(X, references.labels("sparse"), verbose=0)
    np.testing.assert_array_equal(flat_weights(model), before)
