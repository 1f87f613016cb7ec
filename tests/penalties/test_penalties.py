"""Every penalty against NumPy: its value, its gradient and what it must not depend on.

The networks run in float64. Central differences with step 1e-5 are then exact to about 1e-10
of the function's scale, so the claimed relative tolerance of 1e-5 leaves room.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from keras_gbr.penalties.forward_pass import ForwardPass
from support.calls import number, to_numpy
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
    slope,
    softmax,
    values,
)

pytestmark = [pytest.mark.jax, pytest.mark.usefixtures("double_precision")]


def test_jacobian_of_a_linear_model_is_the_squared_norm_of_its_matrix():
    inputs = keras.Input((6,))
    model = gbr.GBRModel(inputs, layers.Dense(4)(inputs))
    x, _ = batch((6,))
    exact = values(model, gbr.Jacobian(1.0, num_projections=None), x)
    kernel = model.get_weights()[0]
    np.testing.assert_allclose(exact, np.full(4, (kernel**2).sum()), rtol=1e-13)


def test_exact_jacobian_agrees_with_differences():
    for model, shape in ((dense_network(), (5,)), (conv_network(), (6, 6, 2))):
        x, _ = batch(shape)
        reference = (jacobians(lambda x, m=model: predictions(m, x), x) ** 2).sum((1, 2))
        exact = values(model, gbr.Jacobian(1.0, num_projections=None), x)
        np.testing.assert_allclose(exact, reference, rtol=1e-7)


@pytest.mark.parametrize(
    ("outputs", "activation", "loss", "function"),
    [
        (3, None, "logits", softmax),
        (1, None, None, lambda z: 1 / (1 + np.exp(-z))),
        (3, "softmax", "sparse_categorical_crossentropy", lambda p: p),
        (1, "sigmoid", "binary_crossentropy", lambda p: p),
    ],
)
def test_jacobian_of_probabilities(outputs, activation, loss, function):
    model = dense_network(outputs, activation)
    x, _ = batch((5,))
    reference = (jacobians(lambda x: function(predictions(model, x)), x) ** 2).sum((1, 2))
    penalty = gbr.Jacobian(1.0, num_projections=None, of="probabilities")
    np.testing.assert_allclose(values(model, penalty, x, loss=loss), reference, rtol=1e-6)


def test_several_outputs_of_any_shape_count_as_one_vector():
    inputs = keras.Input((4, 3))
    steps = layers.Dense(2, activation="tanh")(inputs)
    single = layers.Dense(5)(layers.Flatten()(inputs))
    model = gbr.GBRModel(inputs, {"steps": steps, "single": single})
    x, _ = batch((4, 3))

    def both(x):
        outputs = model(keras.ops.convert_to_tensor(x, "float64"))
        return np.concatenate(
            [to_numpy(output).reshape(len(x), -1) for output in outputs.values()], axis=1
        )

    reference = (jacobians(both, x) ** 2).sum((1, 2))
    exact = values(model, gbr.Jacobian(1.0, num_projections=None), x, loss=None)
    np.testing.assert_allclose(exact, reference, rtol=1e-7)
    repeated = np.repeat(x, 200, axis=0)
    estimates = values(model, gbr.Jacobian(1.0, num_projections=2), repeated, loss=None)
    estimates = estimates.reshape(4, 200)
    error = np.std(estimates, axis=1, ddof=1) / 200**0.5
    assert np.all(abs(np.mean(estimates, axis=1) - reference) < 5 * error)


def test_projections_are_unbiased_with_a_relative_variance_below_two():
    model = dense_network()
    x = np.repeat(batch((5,), samples=1)[0], 4000, axis=0)
    exact = values(model, gbr.Jacobian(1.0, num_projections=None), x[:1])[0]
    estimates = values(model, gbr.Jacobian(1.0, seed=3), x)
    standard_error = estimates.std(ddof=1) / len(x) ** 0.5
    assert abs(estimates.mean() - exact) < 4 * standard_error
    assert len(np.unique(estimates)) > 3900, "every sample has a direction of its own"
    assert estimates.var() < 2 * exact**2
    several = values(model, gbr.Jacobian(1.0, num_projections=8, seed=3), x)
    np.testing.assert_allclose(several.var(), estimates.var() / 8, rtol=0.2)


def test_projections_change_only_with_the_step_and_the_seed():
    model = dense_network()
    x, _ = batch((5,))
    penalty = gbr.Jacobian(1.0, seed=1)
    first = values(model, penalty, x)
    np.testing.assert_array_equal(first, values(model, penalty, x))
    assert not np.allclose(first, values(model, gbr.Jacobian(1.0, seed=2), x))
    model.optimizer.iterations.assign(1)
    later = to_numpy(penalty(model.forward_pass(keras.ops.convert_to_tensor(x))))
    assert not np.allclose(first, later)


@pytest.mark.parametrize("network", [dense_network, conv_network])
def test_input_gradient_agrees_with_differences(network):
    model = network()
    x, y = batch(model.input_shape[1:])
    rows = jacobians(lambda x: cross_entropies(predictions(model, x), y), x)
    penalty = gbr.InputGradient(1.0)
    np.testing.assert_allclose(values(model, penalty, x, y), (rows**2).sum((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("as_labels", [lambda y: y, lambda y: y[:, None], lambda y: np.eye(3)[y]])
def test_gradient_of_the_label_probability(as_labels):
    model = dense_network()
    x, y = batch((5,))
    rows = jacobians(lambda x: softmax(predictions(model, x))[np.arange(4), y], x)
    penalty = gbr.InputGradient(1.0, of="label_probability")
    got = values(model, penalty, x, as_labels(y), loss=None)
    np.testing.assert_allclose(got, (rows**2).sum((1, 2)), rtol=1e-6)


def test_gradient_of_the_label_probability_of_two_classes():
    model = dense_network(1)
    x, y = batch((5,), classes=2)
    rows = jacobians(lambda x: 1 / (1 + np.exp(-predictions(model, x))), x)
    penalty = gbr.InputGradient(1.0, of="label_probability")
    got = values(model, penalty, x, y, loss=None)
    np.testing.assert_allclose(got, (rows**2).sum((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("weights", [None, np.array([0.5, 2.0, 0.0, 1.0])])
def test_parameter_gradient_agrees_with_differences(weights):
    model = dense_network()
    x, y = batch((5,))
    weighting = np.ones(4) if weights is None else weights

    def loss():
        return (weighting * cross_entropies(predictions(model, x), y)).mean()

    reference = 0.0
    for variable in model.trainable_variables:
        for index in np.ndindex(*variable.shape):
            direction = np.zeros(tuple(variable.shape))
            direction[index] = 1.0
            reference += slope(loss, [variable], [direction]) ** 2
    got = values(model, gbr.ParameterGradient(1.0), x, y, sample_weight=weights)
    np.testing.assert_allclose(got, reference, rtol=1e-6)


PENALTIES = {
    "exact Jacobian": gbr.Jacobian(1.0, num_projections=None),
    "projected Jacobian": gbr.Jacobian(1.0, num_projections=2, seed=5),
    "Jacobian of probabilities": gbr.Jacobian(1.0, num_projections=None, of="probabilities"),
    "InputGradient": gbr.InputGradient(1.0),
    "label probability": gbr.InputGradient(1.0, of="label_probability"),
    "ParameterGradient": gbr.ParameterGradient(1.0),
}


@pytest.mark.parametrize("network", [dense_network, conv_network])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_gradients_agree_with_differences(penalty, network):
    model = network()
    x, y = batch(model.input_shape[1:])
    check_gradient(model, mean_of(model, penalty, x, y))


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize(
    "normalization", [layers.BatchNormalization, layers.LayerNormalization], ids=["batch", "layer"]
)
def test_gradients_through_normalisation_in_training(penalty, normalization):
    """TensorFlow's own second derivative of the moments lacks a term: several percent here."""
    model = conv_network(normalization, groups=None)
    x, y = batch((6, 6, 2), samples=3)
    check_gradient(model, mean_of(model, penalty, x, y, training=True))


@pytest.mark.parametrize("of", ["loss", "label_probability"])
def test_input_gradient_does_not_depend_on_the_batch(of):
    model = dense_network()
    x, y = batch((5,), samples=6)
    penalty = gbr.InputGradient(1.0, of=of)
    whole = values(model, penalty, x, y)
    parts = [
        values(model, penalty, x[i : i + n], y[i : i + n]) for i, n in ((0, 1), (1, 2), (3, 3))
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (4, 5)])
def test_input_gradient_does_not_depend_on_the_reduction(shape):
    inputs = keras.Input(shape)
    model = gbr.GBRModel(inputs, layers.Dense(2, activation="tanh")(inputs))
    x, _ = batch(shape)
    y = np.random.default_rng(1).standard_normal((*x.shape[:-1], 2))
    reductions = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)
    got = [
        values(model, gbr.InputGradient(1.0), x, y, keras.losses.MeanSquaredError(r))
        for r in reductions
    ]
    for other in got[1:]:
        np.testing.assert_allclose(other, got[0], rtol=1e-12)

    def losses(x):
        squares = (predictions(model, x) - y) ** 2
        return squares.reshape(len(x), -1).mean(axis=1)

    np.testing.assert_allclose(got[0], (jacobians(losses, x) ** 2).sum((1, 2)), rtol=1e-6)


def test_loss_of_a_sample_has_all_outputs_with_their_weights():
    inputs = keras.Input((5,), name="x")
    outputs = {
        name: layers.Dense(units, name=name)(inputs) for name, units in (("kind", 3), ("size", 1))
    }
    model = gbr.GBRModel(inputs, outputs)
    x, y = batch((5,))
    size = np.random.default_rng(1).standard_normal((4, 1))
    model.compile(
        "sgd",
        {"kind": logits_loss(), "size": "mse"},
        loss_weights={"kind": 1.0, "size": 0.3},
        penalties=[gbr.InputGradient(1.0)],
    )
    forward = model.forward_pass(
        keras.ops.convert_to_tensor(x), {"kind": keras.ops.convert_to_tensor(y), "size": size}
    )

    def losses(x):
        predicted = model(keras.ops.convert_to_tensor(x, "float64"))
        squares = (to_numpy(predicted["size"]) - size)[:, 0] ** 2
        return cross_entropies(to_numpy(predicted["kind"]), y) + 0.3 * squares

    reference = (jacobians(losses, x) ** 2).sum((1, 2))
    np.testing.assert_allclose(to_numpy(model.penalties[0](forward)), reference, rtol=1e-5)


def test_sample_weights_weight_the_mean_once():
    model = dense_network()
    x, _ = batch((5,))
    weights = keras.ops.convert_to_tensor([1.0, 0.0, 2.0, 3.0])
    forward = ForwardPass(model, keras.ops.convert_to_tensor(x), sample_weight=weights)
    assert number(forward.sample_mean(keras.ops.convert_to_tensor([1.0, 5.0, 2.0, 4.0]))) == 17 / 4
    steps = ForwardPass(
        model, keras.ops.convert_to_tensor(x), sample_weight=keras.ops.ones((4, 7)) * 0.5
    )
    assert number(steps.sample_mean(keras.ops.ones(4))) == 0.5


def test_integer_inputs_are_left_out():
    tokens = keras.Input((2,), dtype="int32", name="tokens")
    numbers = keras.Input((3,), dtype="float64", name="numbers")
    embedded = layers.Flatten()(layers.Embedding(9, 2)(tokens))
    joined = layers.Concatenate()([embedded, numbers])
    model = gbr.GBRModel([tokens, numbers], layers.Dense(2)(joined))
    x = [np.array([[1, 2], [3, 4]], "int32"), np.random.default_rng(0).standard_normal((2, 3))]
    model.compile("sgd", penalties=[gbr.Jacobian(1.0, None)])
    forward = model.forward_pass([keras.ops.convert_to_tensor(a) for a in x])
    exact = to_numpy(model.penalties[0](forward))
    kernel = model.get_weights()[1][-3:]
    np.testing.assert_allclose(exact, np.full(2, (kernel**2).sum()), rtol=1e-12)
    assert gbr.measures.gbr(model, x) == pytest.approx(exact[0], rel=1e-12)


def test_a_model_with_only_integer_inputs_is_refused():
    tokens = keras.Input((2,), dtype="int32")
    model = gbr.GBRModel(tokens, layers.Dense(1)(layers.Embedding(9, 2)(tokens)))
    with pytest.raises(ValueError, match=r"floating-point input.*Received: inputs of dtypes"):
        values(model, gbr.Jacobian(1.0), np.zeros((3, 2), "int32"))


def test_a_model_that_ignores_its_input_is_refused():
    inputs = keras.Input((3,))
    cut = layers.Lambda(keras.ops.stop_gradient)(inputs)
    model = gbr.GBRModel(inputs, layers.Dense(2)(cut))
    x = np.zeros((2, 3), "float32")
    with pytest.raises(ValueError, match="differentiable operations"):
        values(model, gbr.Jacobian(1.0), x)


def test_penalties_are_finite_in_half_precision_where_squares_overflow():
    inputs = keras.Input((4,), dtype="float32")
    model = gbr.GBRModel(inputs, layers.Dense(3, dtype="mixed_float16")(inputs))
    model.set_weights([np.full((4, 3), 300.0), np.zeros(3)])
    x = np.zeros((2, 4), "float32")
    exact = values(model, gbr.Jacobian(1.0, None), x)
    # 300 is exact in float16; its square, 90,000, is beyond its largest number.
    np.testing.assert_array_equal(exact, np.full(2, 12 * 300.0**2, "float32"))
