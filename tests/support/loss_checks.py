"""The penalties of a model with a loss, against those that NumPy finds: values and one step."""

import keras
import numpy as np

import keras_gbr as gbr
from support import loss_references as references
from support.calls import BACKEND

# Eagerly, JAX compiles each operation alone.
EAGERLY = BACKEND != "jax"


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
    """Checks what `fit` logs, in single precision."""
    settings.setdefault("optimizer", keras.optimizers.SGD(0.0))
    model.compile(loss=loss, penalties=all_penalties(ONES), **settings)
    history = model.fit(x, y, sample_weight=sample_weight, verbose=0, batch_size=len(x)).history
    for name in ONES:
        np.testing.assert_allclose(history[name], expected[name][0], rtol, err_msg=name)
    total = sum(value for value, _ in expected.values())
    np.testing.assert_allclose(history["loss"], total, rtol, err_msg="loss")


def check_step(model, loss, expected, x, y, sample_weight=None, **settings):
    """Checks what one step of gradient descent changes, in double precision.

    The weights of the penalties give each a gradient of the same size.
    """
    scales = {name: 1 / np.abs(expected[name][1]).max() for name in ONES}
    before = flat_weights(model)
    model.compile(keras.optimizers.SGD(1.0), loss, penalties=all_penalties(scales), **settings)
    logs = model.train_on_batch(x, y, sample_weight=sample_weight, return_dict=True)
    for name in ONES:
        np.testing.assert_allclose(logs[name], expected[name][0], 1e-6, err_msg=name)
    change = before - flat_weights(model)
    total = expected["loss"][1] + sum(scales[name] * expected[name][1] for name in ONES)
    np.testing.assert_allclose(change, total, rtol=0, atol=1e-5 * max(1.0, np.abs(total).max()))
