"""The penalties on every loss of Keras, against NumPy's loss of the whole model."""

import inspect

import keras
import loss_references as references
import numpy as np
import pytest
from calls import BACKEND
from keras import layers
from loss_references import LOSSES, OTHERS, Net, Outputs, function_name
from networks import use_float64

import keras_gbr as gbr

HEADS = ("linear", "softmax", "sigmoid")
CASES = [(name, head) for name in LOSSES for head in HEADS]
X = references.inputs()


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


def set_weights(model, theta):
    offset = 0
    for variable in model.trainable_variables:
        size = int(np.prod(variable.shape))
        variable.assign(theta[offset : offset + size].reshape(variable.shape))
        offset += size


def flat_weights(model):
    return np.concatenate([np.ravel(w) for w in model.get_weights()]).astype("float64")


def all_penalties(scales):
    return [
        gbr.InputGradient(scales["input_gradient"]),
        gbr.ParameterGradient(scales["parameter_gradient"]),
        gbr.Adversarial(scales["adversarial"], epsilon=references.EPSILON, norm=2),
    ]


ONES = {"input_gradient": 1.0, "parameter_gradient": 1.0, "adversarial": 1.0}


def check_values(model, loss, expected, x, y, rtol=1e-3, sample_weight=None, **settings):
    """What `fit` logs, in single precision."""
    settings.setdefault("optimizer", keras.optimizers.SGD(0.0))
    model.compile(loss=loss, penalties=all_penalties(ONES), **settings)
    history = model.fit(x, y, sample_weight=sample_weight, verbose=0, batch_size=len(X)).history
    for name in ONES:
        np.testing.assert_allclose(history[name], expected[name][0], rtol, err_msg=name)
    total = sum(value for value, _ in expected.values())
    np.testing.assert_allclose(history["loss"], total, rtol, err_msg="loss")


def check_step(model, loss, expected, x, y, sample_weight=None, **settings):
    """What one step of gradient descent changes, in double precision.

    The weights of the penalties are such that each has a gradient of the same size.
    """
    scales = {name: 1 / np.abs(expected[name][1]).max() for name in ONES}
    before = flat_weights(model)
    model.compile(keras.optimizers.SGD(1.0), loss, penalties=all_penalties(scales), **settings)
    logs = model.train_on_batch(x, y, sample_weight=sample_weight, return_dict=True)
    for name in ONES:
        np.testing.assert_allclose(logs[name], expected[name][0], 1e-5, err_msg=name)
    change = before - flat_weights(model)
    total = expected["loss"][1] + sum(scales[name] * expected[name][1] for name in ONES)
    np.testing.assert_allclose(change, total, rtol=0, atol=1e-5 * max(1.0, np.abs(total).max()))


def forms(name, config):
    """The ways to give a loss to `compile`: as an object, and by name or as a function."""
    made = getattr(keras.losses, name)(**config)
    if config:
        function = getattr(keras.losses, function_name(name))
        return {"object": made, "function": lambda y, u: function(y, u, **config)}
    function = function_name(name)
    return {"object": made, "function": getattr(keras.losses, function), "name": function}


@pytest.mark.parametrize(("name", "head"), CASES)
def test_a_loss_by_name(name, head):
    """Values in single precision, as `fit` with its defaults logs them."""
    net, y, config = arranged(name, head, {})
    given = list(forms(name, config).values())[-1]
    model = model_of(net, head)
    check_values(model, given, references.penalties(net, X[:, None]), X.astype("float32"), y)


@pytest.mark.parametrize(("name", "head"), CASES)
def test_a_loss_as_an_object(name, head):
    """Values and gradients in double precision."""
    use_float64()
    net, y, config = arranged(name, head, {})
    model = model_of(net, head)
    given = forms(name, config)["object"]
    check_step(
        model, given, references.penalties(net, X[:, None]), X, y, run_eagerly=BACKEND != "jax"
    )
