"""Input gradients in all norms, two-sided, of other numbers, and by finite differences.

The networks run in float64; see test_penalties for the tolerances.
"""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import keras_gbr as gbr
from keras_gbr.maths.gradient_norms import gradient_norms, steepest_steps
from support.calls import differentiated, number, to_numpy, value_and_gradients
from support.networks import (
    batch,
    check_gradient,
    conv_network,
    cross_entropies,
    dense_network,
    jacobians,
    logits_loss,
    mean_of,
    predictions,
    values,
)

ORDERS = {1: 1, 2: 2, "inf": np.inf}


pytestmark = [pytest.mark.jax, pytest.mark.usefixtures("double_precision")]


def loss_gradients(model, x, y):
    """The gradient of each sample's loss as a matrix, by central differences."""
    return jacobians(lambda x: cross_entropies(predictions(model, x), y), x)[:, 0]


@pytest.mark.parametrize("target", [0.0, 0.3])
@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("network", [dense_network, conv_network])
def test_norms_agree_with_numpy(network, norm, target):
    model = network()
    x, y = batch(model.input_shape[1:])
    lengths = np.linalg.norm(loss_gradients(model, x, y), ORDERS[norm], axis=1)
    got = values(model, gbr.InputGradient(1.0, norm, target), x, y)
    np.testing.assert_allclose(got, (lengths - target) ** 2, rtol=1e-6)


def test_gradient_of_the_only_output():
    model = dense_network(1)
    x, _ = batch((5,))
    lengths = np.linalg.norm(jacobians(lambda x: predictions(model, x), x)[:, 0], axis=1)
    penalty = gbr.InputGradient(1.0, target=1.0, of="output")
    got = values(model, penalty, x, loss=None)
    np.testing.assert_allclose(got, (lengths - 1) ** 2, rtol=1e-6)


@pytest.mark.parametrize("of", ["loss", "label_probability", "output"])
@pytest.mark.parametrize("norm", ORDERS)
def test_all_forms_on_a_linear_model_are_closed_forms(norm, of):
    """With one weight vector w the gradient of every form is a multiple of w."""
    inputs = keras.Input((6,))
    model = gbr.GBRModel(inputs, layers.Dense(1)(inputs))
    x, y = batch((6,), classes=2)
    kernel = model.get_weights()[0][:, 0]
    z = predictions(model, x)[:, 0]
    probability = 1 / (1 + np.exp(-z))
    factors = {
        "loss": probability - y,
        "label_probability": probability * (1 - probability),
        "output": np.ones(4),
    }
    penalty = gbr.InputGradient(1.0, norm, of=of)
    got = values(model, penalty, x, y, keras.losses.BinaryCrossentropy(from_logits=True))
    expected = (factors[of] * np.linalg.norm(kernel, ORDERS[norm])) ** 2
    np.testing.assert_allclose(got, expected, rtol=1e-12)


PENALTIES = {
    "norm 1": gbr.InputGradient(1.0, norm=1),
    "norm inf": gbr.InputGradient(1.0, norm="inf"),
    "target": gbr.InputGradient(1.0, target=0.3),
    "label probability in norm 1": gbr.InputGradient(1.0, norm=1, of="label_probability"),
}


@pytest.mark.parametrize("network", [dense_network, conv_network])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_gradients_agree_with_differences(penalty, network):
    model = network()
    x, y = batch(model.input_shape[1:])
    check_gradient(model, mean_of(model, penalty, x, y))


@pytest.mark.parametrize("target", [0.0, 0.5])
@pytest.mark.parametrize("norm", ORDERS)
def test_a_gradient_of_zero_has_a_finite_derivative(norm, target):
    zeros = [np.zeros((3, 2, 2)), np.zeros((3, 4))]

    def total(*gradients):
        return keras.ops.sum((gradient_norms(gradients, norm) - target) ** 2)

    value, gradients = value_and_gradients(total, *zeros)
    assert value == 3 * target**2
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        if norm == 2 or target == 0:
            np.testing.assert_array_equal(gradient, 0.0)


@given(
    st.sampled_from([1, 2, "inf"]),
    st.integers(0, 2**31),
    st.sampled_from([(1, 1), (3, 2), (2, 3, 2)]),
)
def test_steepest_steps_have_length_one_and_gain_the_dual_norm(norm, seed, shape):
    rng = np.random.default_rng(seed)
    # Small whole numbers: ties and zeros occur.
    gradients = [rng.integers(-2, 3, shape).astype("float64") for _ in range(2)]
    steps = steepest_steps([keras.ops.convert_to_tensor(g) for g in gradients], norm)
    dual = {1: np.inf, 2: 2, "inf": 1}[norm]
    for sample in range(shape[0]):
        gradient = np.concatenate([part[sample].ravel() for part in gradients])
        step = np.concatenate([to_numpy(part)[sample].ravel() for part in steps])
        length = np.linalg.norm(step, ORDERS[norm])
        assert length == pytest.approx(float(gradient.any()), rel=1e-12)
        assert gradient @ step == pytest.approx(np.linalg.norm(gradient, dual), rel=1e-12)


def mean_and_gradient(model, penalty, x, y):
    """The mean of the values in training mode, and its gradient by all parameters."""
    mean = mean_of(model, penalty, x, y, training=True)
    value, _, gradients = differentiated(lambda: (mean(), []), model.trainable_variables)()
    return value, np.concatenate([np.ravel(gradient) for gradient in gradients])


SMOOTH = {
    "dense": dense_network,
    "convolution": conv_network,
    "coupled": lambda: conv_network(layers.BatchNormalization, groups=None),
}


@pytest.mark.parametrize("target", [0.0, 0.1])
@pytest.mark.parametrize("norm", ORDERS)
@pytest.mark.parametrize("network", SMOOTH)
def test_finite_differences_tend_to_double_backpropagation_with_order_one(network, norm, target):
    """Also where batch normalisation couples the samples of the batch."""
    model = SMOOTH[network]()
    x, y = batch(model.input_shape[1:], samples=8)
    exact = mean_and_gradient(model, gbr.InputGradient(1.0, norm, target), x, y)
    errors = []
    for step in (1e-3, 1e-4):
        penalty = gbr.InputGradient(1.0, norm, target, method="finite_difference", step=step)
        value, gradient = mean_and_gradient(model, penalty, x, y)
        assert value == pytest.approx(exact[0], rel=1e-12)
        errors.append(np.linalg.norm(gradient - exact[1]) / np.linalg.norm(exact[1]))
    assert errors[0] < 0.01
    assert np.log10(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.1)


def test_finite_differences_repeat_the_random_layers_of_the_forward_pass():
    """With another mask in the second pass the quotient would be as large as 1 / step."""
    inputs = keras.Input((40,))
    x = layers.Dropout(0.5, seed=3)(layers.Dense(20, activation="tanh")(inputs))
    model = gbr.GBRModel(inputs, layers.Dense(3)(layers.GaussianNoise(0.5, seed=4)(x)))
    x, y = batch((40,))
    exact, differences = (
        gbr.InputGradient(1.0, method=method) for method in ("double_backprop", "finite_difference")
    )
    model.compile("sgd", logits_loss())
    seeds = [to_numpy(v) for v in model.non_trainable_variables]
    forward = model.forward_pass(*map(keras.ops.convert_to_tensor, (x, y)), training=True)
    after = [to_numpy(v) for v in model.non_trainable_variables]
    assert not np.array_equal(seeds[0], after[0])
    squares = to_numpy(exact(forward))
    np.testing.assert_allclose(to_numpy(differences(forward)), squares, rtol=1e-12)
    # The growth over a step of length h is about h times the norm.
    steps, scale, _ = differences.constants(forward)
    lengths = np.linalg.norm(to_numpy(steps[0]), axis=1)
    growth = to_numpy(differences._growth(forward, steps, scale)) / number(scale)
    np.testing.assert_allclose(growth, lengths * np.sqrt(squares), rtol=0.05)
    for variable, value in zip(model.non_trainable_variables, after, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_finite_differences_train_a_model_with_bilinear_upsampling():
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(3, 3, activation="tanh", padding="same")(inputs)
    x = layers.UpSampling2D(interpolation="bilinear")(x)
    x = layers.Flatten()(layers.Conv2D(2, 3, activation="tanh")(x))
    model = gbr.GBRModel(inputs, layers.Dense(2)(x))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 4, 4, 1)).astype("float32")
    y = (x[:, 0, 0, 0] > 0).astype("int32")
    sensitivities = []
    for weight in (0.0, 1.0):
        keras.utils.set_random_seed(3)
        twin = keras.models.clone_model(model)
        penalty = gbr.InputGradient(weight, method="finite_difference")
        optimizer = keras.optimizers.Adam(0.01)
        twin.compile(optimizer, logits_loss(), metrics=["accuracy"], penalties=[penalty])
        history = twin.fit(x, y, batch_size=32, epochs=15, verbose=0).history
        assert history["accuracy"][-1] > 0.9
        # The gradient of the loss vanishes where the data are fitted; that of the output does not.
        sensitivities.append(gbr.measures.gbr(twin, x))
    assert sensitivities[1] < 0.5 * sensitivities[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": 3}, "`norm` must be 1, 2 or 'inf'.*Received: norm=3"),
        ({"norm": True}, "`norm` must be 1, 2 or 'inf'"),
        ({"norm": None}, "`norm` must be 1, 2 or 'inf'"),
        ({"target": -1}, "`target` must be a finite number >= 0"),
        ({"of": "logits"}, "`of` must be one of 'loss', 'label_probability', 'output'"),
        ({"method": "exact"}, "`method` must be one of 'double_backprop', 'finite_difference'"),
        ({"step": 0.0}, "`step` must be a finite number > 0"),
        ({"at": 3}, "`at` must be a layer, its name or path"),
        ({"interval": 0}, "`interval` must be a whole number >= 1"),
        ({"interval": 2.0}, "`interval` must be a whole number >= 1"),
        ({"fraction": 0}, "`fraction` must be a finite number > 0"),
        ({"fraction": 1.5}, r"`fraction` must be in \(0, 1\]. Received: fraction=1.5"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gbr.InputGradient(1.0, **arguments)


def test_several_output_numbers_are_refused_for_the_output():
    x, _ = batch((5,))
    with pytest.raises(ValueError, match=r"one output number per sample.*Received: shapes"):
        values(dense_network(3), gbr.InputGradient(1.0, of="output"), x, loss=None)
