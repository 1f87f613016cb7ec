"""Connectionist temporal classification: the only loss of Keras for a whole sequence."""

import itertools

import keras
import numpy as np
import pytest

import keras_gbr as gbr
from support import loss_references as references
from support.calls import BACKEND
from support.loss_checks import EAGERLY, flat_weights, set_weights
from support.loss_references import CLASSES, FEATURES, HIDDEN, Net, log_softmax
from support.networks import use_float64

STEPS = 4
LABELS = np.array([[1, 2], [2, 0], [1, 1], [2, 1]])  # 0 is the blank, and pads
X = references.inputs((STEPS,))


def collapsed(path):
    """The label of a path: without repetitions, then without blanks."""
    return [step for step, _ in itertools.groupby(path) if step]


def ctc(heads):
    """The sum over all paths that say the label, one by one."""
    log_p = log_softmax(heads[0])
    losses = []
    for sample, label in enumerate(LABELS):
        paths = itertools.product(range(CLASSES), repeat=STEPS)
        fitting = [path for path in paths if collapsed(path) == [k for k in label if k]]
        sums = [log_p[..., sample, np.arange(STEPS), path].sum(-1) for path in fitting]
        losses.append(-np.log(np.exp(np.stack(sums, -1)).sum(-1)))
    return np.stack(losses, -1)[..., None]


def model_of(net):
    x = keras.Input((STEPS, FEATURES))
    hidden = keras.layers.Dense(HIDDEN, activation="tanh")(x)
    model = gbr.GBRModel(x, keras.layers.Dense(CLASSES)(hidden))
    set_weights(model, net.theta)
    return model


PENALTIES = {
    "input_gradient": gbr.InputGradient(1.0),
    "parameter_gradient": gbr.ParameterGradient(1.0),
    "adversarial": gbr.Adversarial(1.0, epsilon=references.EPSILON, norm=2),
}


@pytest.mark.parametrize("eagerly", [True, False] if EAGERLY else [False])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_loss_of_sequences_is_right_or_refused(name, eagerly):
    """TensorFlow and PyTorch have no second derivative of it, which all but one penalty need."""
    use_float64()
    net = Net(references.weights(), ctc)
    expected = references.penalties(net, X)
    model = model_of(net)
    before = flat_weights(model)
    penalty = PENALTIES[name]
    model.compile(keras.optimizers.SGD(1.0), "ctc", penalties=[penalty], run_eagerly=eagerly)
    if name != "adversarial" and BACKEND != "jax":
        with pytest.raises(ValueError, match="second derivative"):
            model.train_on_batch(X, LABELS)
        np.testing.assert_array_equal(flat_weights(model), before)
        return
    logs = model.train_on_batch(X, LABELS, return_dict=True)
    np.testing.assert_allclose(logs[name], expected[name][0], rtol=1e-5)
    total = expected["loss"][1] + expected[name][1]
    change = before - flat_weights(model)
    np.testing.assert_allclose(change, total, rtol=0, atol=1e-5 * np.abs(total).max())
