"""Adversarial training: the loss at the moved inputs, by NumPy, and to first order."""

import keras
import numpy as np
import pytest

import keras_gbr as gbr
from support.calls import STEPS
from support.networks import (
    batch,
    check_gradient,
    conv_network,
    cross_entropies,
    dense_network,
    jacobians,
    mean_of,
    predictions,
    values,
)

pytestmark = [pytest.mark.jax, pytest.mark.usefixtures("double_precision")]


def moved(model, x, y, norm, epsilon):
    """The inputs after one step of the attack, by central differences."""
    gradients = jacobians(lambda x: cross_entropies(predictions(model, x), y), x)[:, 0]
    if norm == "inf":
        steps = np.sign(gradients)
    elif norm == 2:
        steps = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    elif norm == 1:
        largest = np.abs(gradients).max(axis=1, keepdims=True)
        steps = np.where(np.abs(gradients) == largest, np.sign(gradients), 0.0)
    else:
        steps = gradients
    return x + epsilon * steps.reshape(x.shape)


@pytest.mark.parametrize("data_range", [None, (-0.5, 0.8)])
@pytest.mark.parametrize("norm", ["inf", 2, 1, None])
@pytest.mark.parametrize("network", [dense_network, conv_network])
def test_the_loss_at_the_moved_inputs_is_that_of_numpy(network, norm, data_range):
    model = network()
    x, y = batch(model.input_shape[1:])
    if data_range:
        x = np.clip(x, *data_range)
    attacked = moved(model, x, y, norm, 0.3)
    if data_range:
        attacked = np.clip(attacked, *data_range)
    got = values(model, gbr.Adversarial(1.0, 0.3, norm, data_range), x, y)
    np.testing.assert_allclose(got, cross_entropies(predictions(model, attacked), y), rtol=1e-6)


@pytest.mark.parametrize("norm", ["inf", 2, 1, None])
def test_the_gradient_holds_the_moved_inputs_constant(norm):
    model = dense_network()
    x, y = batch((5,))
    attacked = moved(model, x, y, norm, 0.3)
    check_gradient(
        model,
        mean_of(model, gbr.Adversarial(1.0, 0.3, norm), x, y),
        numeric=lambda: cross_entropies(predictions(model, attacked), y).mean(),
    )


@pytest.mark.parametrize("network", [dense_network, conv_network])
def test_to_first_order_it_is_the_loss_and_the_input_gradient(network):
    """loss(x + eps grad) - loss(x) - eps ||grad||^2 falls as eps^2."""
    model = network()
    x, y = batch(model.input_shape[1:], samples=8)
    losses = cross_entropies(predictions(model, x), y)
    squares = values(model, gbr.InputGradient(1.0), x, y)
    steps = np.array([0.04, 0.02, 0.01, 0.005])
    rests = [
        np.abs(values(model, gbr.Adversarial(1.0, e, norm=None), x, y) - losses - e * squares).sum()
        for e in steps
    ]
    order = np.polyfit(np.log(steps), np.log(rests), 1)[0]
    assert order == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("mode", STEPS)
def test_training_updates_moving_averages_by_the_given_inputs_alone(mode):
    """The second pass has no effect: weight 0 is plain training, bit for bit."""
    averages = []
    for penalties in (None, [gbr.Adversarial(0.0, 0.1), gbr.InputGradient(0.0, fraction=0.5)]):
        keras.utils.set_random_seed(2)
        model = conv_network(keras.layers.BatchNormalization, groups=None)
        x, y = batch((6, 6, 2), samples=8)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, penalties=penalties, **STEPS[mode])
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        averages.append(model.get_weights())
    # Compiled or run one by one, the same operations may be added up in another order.
    for plain, tracked in zip(*averages, strict=True):
        np.testing.assert_allclose(tracked, plain, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0}, "`epsilon` must be a finite number > 0. Received: epsilon=0"),
        ({"epsilon": None}, "`epsilon` must be a finite number > 0"),
        ({"norm": "l2"}, "`norm` must be 1, 2 or 'inf'"),
        ({"data_range": (1, 0)}, r"`data_range` must be a pair of numbers \(low, high\)"),
        ({"data_range": 1.0}, r"`data_range` must be a pair of numbers"),
        ({"data_range": (0, "1")}, "`data_range` must be a finite number"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gbr.Adversarial(1.0, **{"epsilon": 0.1, **arguments})


def test_it_needs_a_loss():
    with pytest.raises(ValueError, match="Adversarial penalises a gradient of the loss"):
        dense_network().compile("sgd", penalties=[gbr.Adversarial(1.0, 0.1)])
