"""measures.gbr against NumPy, on data of every form, and what it must leave alone."""

import gc
import logging
import weakref

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import BACKEND, tensorflow_only, to_numpy
from support.datasets import MAKERS, data_loader, tf_data
from support.networks import (
    batch,
    conv_network,
    dense_network,
    jacobians,
    predictions,
    softmax,
    use_float64,
)


def reference(model, x, of=lambda z: z):
    """The mean squared Frobenius norm of the Jacobian, by central differences."""
    return (jacobians(lambda x: of(predictions(model, x)), x) ** 2).sum((1, 2)).mean()


@pytest.mark.parametrize("network", [dense_network, conv_network])
@pytest.mark.parametrize(("of", "function"), [("output", lambda z: z), ("probabilities", softmax)])
def test_gbr_agrees_with_differences(network, of, function):
    use_float64()
    model = network()
    x, _ = batch(model.input_shape[1:], samples=5)
    assert gbr.measures.gbr(model, x, of=of) == pytest.approx(
        reference(model, x, function), rel=1e-6
    )


@pytest.mark.parametrize("num_projections", [None, 2])
def test_gbr_does_not_depend_on_the_batch_size_or_change_the_model(num_projections):
    use_float64()
    model = conv_network(layers.BatchNormalization, groups=None)
    x, _ = batch((6, 6, 2), samples=7)
    before = model.get_weights()
    got = [gbr.measures.gbr(model, x, batch_size=size) for size in (1, 3, 7, 100)]
    np.testing.assert_allclose(got, got[0], rtol=1e-12)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    again = [gbr.measures.gbr(model, x, num_projections=num_projections) for _ in range(2)]
    assert again[0] == again[1]


def test_more_outputs_than_fit_one_graph():
    use_float64()
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(37)(inputs))
    x, _ = batch((3,))
    expected = (model.get_weights()[0] ** 2).sum()
    assert gbr.measures.gbr(model, x) == pytest.approx(expected, rel=1e-12)
    estimates = [
        gbr.measures.gbr(model, np.tile(x, (50, 1)), num_projections=1, seed=s) for s in range(6)
    ]
    standard_error = np.std(estimates, ddof=1) / 6**0.5
    assert abs(np.mean(estimates) - expected) < 5 * standard_error


def test_gbr_of_any_keras_model_and_input_structure():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Dense(4)(layers.Concatenate()([a, b])))
    x = {"a": np.zeros((5, 3)), "b": np.ones((5, 2))}
    expected = float((model.get_weights()[0] ** 2).sum())
    assert gbr.measures.gbr(model, x) == pytest.approx(expected, rel=1e-5)
    stack = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    expected = float((stack.get_weights()[0] ** 2).sum())
    assert gbr.measures.gbr(stack, np.zeros((3, 4))) == pytest.approx(expected, rel=1e-5)


def test_progress_bar_on_request(capsys):
    model = dense_network(cls=keras.Model)
    x = batch((5,), samples=6)[0].astype("float32")
    gbr.measures.gbr(model, x, batch_size=2)
    assert capsys.readouterr().out == ""
    gbr.measures.gbr(model, x, batch_size=2, verbose=1)
    assert "3/3" in capsys.readouterr().out


@pytest.mark.parametrize("kind", MAKERS)
def test_progress_bar_of_a_dataset_of_unknown_length(kind, capsys):
    model = dense_network(cls=keras.Model)
    x = batch((5,), samples=6)[0].astype("float32")
    dataset = MAKERS[kind](x, size=2, is_length_known=False)
    gbr.measures.gbr(model, dataset, batch_size=1, verbose=1)
    assert "3/Unknown" in capsys.readouterr().out


class Pieces(keras.utils.PyDataset):
    """Batches `(x, y, sample_weight)`, or as much of that as there is."""

    def __init__(self, *arrays, size=3):
        super().__init__()
        self.arrays, self.size = arrays, size

    @property
    def num_batches(self):
        return -(-len(self.arrays[0]) // self.size)

    def __getitem__(self, index):
        parts = [a[index * self.size : (index + 1) * self.size] for a in self.arrays]
        return parts[0] if len(parts) == 1 else tuple(parts)


SETTINGS = [{}, {"num_projections": 2}, {"of": "probabilities"}]


def of_datasets(make, settings):
    """The measure of arrays in batches of 3, and that of the datasets that `make` makes."""
    model = dense_network(cls=keras.Model)
    x, y = batch((5,), samples=8)
    x, weights = x.astype("float32"), np.ones(8)
    datasets = make(x, y, weights)
    found = [gbr.measures.gbr(model, data, batch_size=3, **settings) for data in datasets]
    return gbr.measures.gbr(model, x, batch_size=3, **settings), found


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", MAKERS)
def test_datasets_agree_with_arrays_exactly(kind, settings):
    make = MAKERS[kind]
    expected, found = of_datasets(
        lambda x, y, weights: [
            make(x, size=3),
            make(x, y, size=3),
            make(x, y, weights, size=3),
            make(x, size=3, is_length_known=False),
            make(x, y, size=6),  # cut: 3, 3 and 2 samples
        ],
        settings,
    )
    assert found == [expected] * 5


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_datasets_of_keras_agree_with_arrays_exactly(settings):
    expected, found = of_datasets(
        lambda x, y, weights: [Pieces(x), Pieces(x, y, weights), Pieces(x, y, size=6)], settings
    )
    assert found == [expected] * 3


def test_datasets_of_structures():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Dense(4)(layers.Concatenate()([a, b])))
    x = {"a": np.zeros((5, 3), "float32"), "b": np.ones((5, 2), "float32")}
    dataset = tf_data(x, np.ones(5), size=4)
    assert gbr.measures.gbr(model, dataset) == pytest.approx(gbr.measures.gbr(model, x), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: tf_data(x, size=2).repeat(), "that ends"),
        (lambda x: Endless(x), "that ends"),
        (lambda x: tf_data(x, size=2).take(0), "at least one batch"),
        (lambda x: tf_data(x[:, 0], size=2).unbatch(), "must be an array"),
        (lambda x: data_loader(x[:, 0], size=None), "must be an array"),
        (lambda x: Pieces(x, x[:5]), "`y` must have one entry for each of the 3 samples"),
    ],
)
def test_datasets_that_are_refused(make, message):
    x = batch((5,), samples=6)[0]
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: "):
        gbr.measures.gbr(dense_network(cls=keras.Model), make(x))


class Endless(Pieces):
    num_batches = None


@pytest.mark.parametrize("num_projections", [None, 1])
def test_standard_error_is_the_spread_of_repetitions(num_projections):
    use_float64()
    model = dense_network(cls=keras.Model)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 20, 5))
    found = [
        gbr.measures.gbr(
            model, part, num_projections=num_projections, seed=seed, standard_error=True
        )
        for seed, part in enumerate(x)
    ]
    spread = np.std([estimate.value for estimate in found], ddof=1)
    # The spread of 300 normal numbers is known to 4 %; the mean of the squares is unbiased.
    root_mean_square = np.mean([estimate.standard_error**2 for estimate in found]) ** 0.5
    assert root_mean_square == pytest.approx(spread, rel=0.15)
    assert found[0].value == gbr.measures.gbr(model, x[0], num_projections=num_projections)


def test_standard_error_of_one_sample_is_unknown():
    model = dense_network(cls=keras.Model)
    value, error = gbr.measures.gbr(model, np.ones((1, 5)), standard_error=True)
    assert value > 0
    assert np.isnan(error)


class Counting(layers.Layer):
    """Notes each call that runs in Python: each trace, in a compiled function."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def call(self, x):
        self.calls += 1
        return x


def measured_model():
    """A model that has been measured on some sizes of batches, and its counter of calls."""
    inputs = keras.Input((3,))
    counting = Counting()
    model = keras.Model(inputs, layers.Dense(9)(counting(inputs)))
    for samples in (4, 5, 6, 7, 9):
        gbr.measures.gbr(model, np.ones((samples, 3)), batch_size=4)
        gbr.measures.gbr(model, np.ones((samples, 3)), num_projections=1)
    return model, counting


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch traces nothing.")
def test_repeated_calls_do_not_trace_again():
    model, counting = measured_model()
    before = counting.calls
    # JAX compiles a program for each size of a batch.
    samples = 9 if BACKEND == "jax" else 11
    gbr.measures.gbr(model, np.ones((samples, 3)), num_projections=1)
    assert counting.calls == before


@tensorflow_only
def test_repeated_calls_do_not_make_tensorflow_warn():
    import tensorflow as tf

    warnings = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    tf.get_logger().addHandler(handler)
    try:
        for _ in range(7):  # TensorFlow warns of retracing at the fifth
            measured_model()
    finally:
        tf.get_logger().removeHandler(handler)
    assert warnings == []


def test_traced_functions_follow_the_model_and_let_it_go():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    x = np.ones((2, 3))
    first = gbr.measures.gbr(model, x)
    model.add(layers.Dense(2))
    kernel = model.get_weights()[0] @ model.get_weights()[2]
    assert gbr.measures.gbr(model, x) == pytest.approx((kernel**2).sum(), rel=1e-5)
    model.set_weights([2 * w for w in model.get_weights()])
    assert gbr.measures.gbr(model, x) == pytest.approx(16 * (kernel**2).sum(), rel=1e-5)
    assert gbr.measures.gbr(model, x) != first
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_probabilities_follow_what_the_model_ends_in():
    use_float64()
    x, _ = batch((5,))
    for activation, function in ((None, softmax), ("softmax", lambda p: p)):
        model = dense_network(activation=activation, cls=keras.Model)
        for loss in (None, "mse", "categorical_crossentropy"):
            model.compile(loss=loss)
            found = gbr.measures.gbr(model, x, of="probabilities")
            assert found == pytest.approx(reference(model, x, function), rel=1e-6)


@pytest.mark.parametrize("num_projections", [None, 1])
def test_states_and_noted_losses_stay(num_projections):
    inputs = keras.Input((4, 3), batch_size=2)
    h = layers.GaussianNoise(0.1, seed=1)(layers.SimpleRNN(5, stateful=True)(inputs))
    model = keras.Model(inputs, layers.Dense(2, activity_regularizer="l2")(h))
    x = np.ones((2, 4, 3), "float32")
    model(x, training=True)
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    (noted,) = model.losses
    gbr.measures.gbr(model, x, num_projections=num_projections)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, to_numpy(variable))
    assert model.losses[0] is noted


def test_a_model_that_runs_eagerly_is_measured_eagerly():
    inputs = keras.Input((3,))
    counting = Counting()
    model = keras.Model(inputs, layers.Dense(2)(counting(inputs)))
    model.compile(run_eagerly=True)
    counting.calls = 0
    gbr.measures.gbr(model, np.ones((6, 3)), num_projections=1, batch_size=2)
    assert counting.calls == 3


def test_kernel_norms():
    inputs = keras.Input((5, 2))
    h = gbr.ENC(layers.LSTM(3, name="lstm"), alpha=4.0, name="enc")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(h))
    norms = gbr.measures.kernel_norms(model)
    head = np.linalg.norm(model.get_layer("head").get_weights()[0])
    expected = {
        "enc/lstm_cell/kernel": 2.0,
        "enc/lstm_cell/recurrent_kernel": 2.0,
        "head": head,
    }
    assert norms == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="must be a built"):
        gbr.measures.kernel_norms(keras.Sequential([layers.Dense(2)]))


@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (np.zeros((4, 5)), {"of": "logits"}, "`of` must be one of"),
        (np.zeros((4, 5)), {"num_projections": 0}, "`num_projections` must be a whole number"),
        (np.zeros((4, 5)), {"batch_size": 0}, "`batch_size`"),
        (np.zeros((4, 5)), {"seed": -1}, "`seed`"),
        (np.zeros((4, 5)), {"verbose": 3}, "`verbose`"),
        (np.zeros((4, 5)), {"standard_error": 1}, "`standard_error` must be True or False"),
        (np.zeros((0, 5)), {}, "at least one"),
        ([np.zeros((4, 5)), np.zeros((3, 5))], {}, "same number of samples"),
        (1.0, {}, "`x` must be an array"),
        ("data", {}, "`x` must be an array"),
    ],
)
def test_bad_arguments(x, arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: "):
        gbr.measures.gbr(dense_network(cls=keras.Model), x, **arguments)


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match="`model` must be a built"):
        gbr.measures.gbr(keras.Sequential([layers.Dense(2)]), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="`model` must be a built"):
        gbr.measures.gbr(layers.Dense(2), np.zeros((2, 3)))


def test_an_output_of_unknown_size_needs_projections():
    use_float64()
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    x, _ = batch((4, 3), samples=400)
    expected = 4 * (model.get_weights()[0] ** 2).sum()
    # The steps of a sequence are independent: the Jacobian is block diagonal.
    estimate = gbr.measures.gbr(model, x, num_projections=1, batch_size=400)
    # Relative variance below 2 for one sample: a standard error below 7 %.
    assert estimate == pytest.approx(expected, rel=0.25)
