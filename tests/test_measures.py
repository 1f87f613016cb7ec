"""measures.gbr and GBRMonitor against NumPy."""

import csv

import keras
import numpy as np
import pytest
from keras import layers
from networks import (
    batch,
    conv_network,
    dense_network,
    jacobians,
    predictions,
    softmax,
    use_float64,
)

import keras_gbr as gbr


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


@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (np.zeros((4, 5)), {"of": "logits"}, "`of` must be one of"),
        (np.zeros((4, 5)), {"num_projections": 0}, "`num_projections` must be a whole number"),
        (np.zeros((4, 5)), {"batch_size": 0}, "`batch_size`"),
        (np.zeros((4, 5)), {"seed": -1}, "`seed`"),
        (np.zeros((4, 5)), {"verbose": 3}, "`verbose`"),
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


def test_monitor_writes_into_history_and_files(tmp_path, capsys):
    inputs = keras.Input((5,))
    hidden = gbr.ENCDense(layers.Dense(6, name="inner"), alpha=2.0, name="enc")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(hidden))
    x, y = batch((5,), samples=16)
    x = x.astype("float32")
    model.compile("sgd", "mse")
    history = model.fit(
        x,
        np.eye(3)[y],
        epochs=2,
        verbose=2,
        callbacks=[gbr.GBRMonitor(x), keras.callbacks.CSVLogger(tmp_path / "log.csv")],
    ).history
    # The last entries are those of the model as training left it.
    assert history["gbr"][-1] == pytest.approx(gbr.measures.gbr(model, x), rel=1e-5)
    assert history["gbr"][0] != history["gbr"][1]
    assert history["kernel_norm/enc"] == pytest.approx([2**0.5] * 2, rel=1e-6)
    head = np.linalg.norm(model.get_layer("head").get_weights()[0])
    assert history["kernel_norm/head"][-1] == pytest.approx(head, rel=1e-6)
    assert set(history) == {"loss", "gbr", "kernel_norm/enc", "kernel_norm/head"}
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["gbr"]) == pytest.approx(history["gbr"][1])
    assert "gbr: " in capsys.readouterr().out


def test_monitor_without_kernel_norms_and_with_bad_arguments():
    model = dense_network(cls=keras.Model)
    x, y = batch((5,))
    model.compile("sgd", "mse")
    monitor = gbr.GBRMonitor(x, of="probabilities", num_projections=3, kernel_norms=False)
    history = model.fit(x, np.eye(3)[y], verbose=0, callbacks=[monitor]).history
    assert set(history) == {"loss", "gbr"}
    with pytest.raises(ValueError, match="`x` must be an array"):
        gbr.GBRMonitor(None)
    with pytest.raises(ValueError, match="`kernel_norms` must be True or False"):
        gbr.GBRMonitor(x, kernel_norms="yes")
    with pytest.raises(ValueError, match="`of` must be one of"):
        gbr.GBRMonitor(x, of="logits")
