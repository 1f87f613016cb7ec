"""The loss around an input: values against NumPy, directions against differences."""

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib import pyplot
from matplotlib.contour import QuadContourSet

import keras_gbr as gbr
from keras_gbr.plots.landscape import loss_plane
from support.figures import ink, lines, trained
from support.networks import (
    batch,
    conv_network,
    cross_entropies,
    dense_network,
    logits_loss,
    predictions,
    use_float64,
)
from support.oracles import central_differences


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("network", [dense_network, conv_network])
def test_the_plane_is_spanned_by_the_gradient_and_an_orthogonal_direction(network):
    use_float64()
    model = network()
    model.compile("sgd", logits_loss())
    x, y = batch(model.input_shape[1:], samples=1)

    def loss(point):
        return cross_entropies(predictions(model, point), y)[0]

    plane = loss_plane(model, x, y, radius=0.5, resolution=4, batch_size=7)
    gradient = central_differences(loss, x)
    np.testing.assert_allclose(plane.u, gradient / np.linalg.norm(gradient), atol=1e-6)
    assert np.linalg.norm(plane.u) == pytest.approx(1, abs=1e-12)
    assert np.linalg.norm(plane.v) == pytest.approx(1, abs=1e-12)
    assert np.sum(plane.u * plane.v) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(plane.offsets, [-1 / 2, -1 / 6, 1 / 6, 1 / 2])
    expected = [[loss(x + a * plane.u + b * plane.v) for a in plane.offsets] for b in plane.offsets]
    np.testing.assert_allclose(plane.losses, expected, rtol=1e-10)
    assert plane.loss == pytest.approx(loss(x), rel=1e-10)
    other = loss_plane(model, x, y, resolution=2, seed=1)
    np.testing.assert_array_equal(other.u, plane.u)
    assert abs(np.sum(other.v * plane.v)) < 0.99
    again = loss_plane(model, x, y, radius=0.5, resolution=4, batch_size=100)
    np.testing.assert_allclose(again.losses, plane.losses, rtol=1e-12)


def test_the_landscape_is_drawn_and_leaves_the_model_as_it_was():
    model, _ = trained()
    x, y = batch((5,), samples=1)
    x = x.astype("float32")

    def state():
        variables = [*model.weights, *model.optimizer.variables, *model.metrics_variables]
        return [keras.ops.convert_to_numpy(variable) for variable in variables]

    before, metrics = state(), model.metrics_names
    ax = gbr.plots.loss_landscape(model, x, y, radius=2.0, resolution=9)
    for old, new in zip(before, state(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.metrics_names == metrics
    plane = loss_plane(model, x, y, radius=2.0, resolution=9)
    (contours,) = [artist for artist in ax.get_children() if isinstance(artist, QuadContourSet)]
    assert contours.filled
    assert (contours.zmin, contours.zmax) == (plane.losses.min(), plane.losses.max())
    # The loss rises to the right, along its gradient.
    highest = next(path for path in reversed(contours.get_paths()) if len(path.vertices))
    assert highest.vertices[:, 0].mean() > 1
    assert lines(ax).popitem()[1] == ([0], [0])
    assert ax.get_xlim() == ax.get_ylim() == (-2, 2)
    assert f"{plane.loss:.3g}" in ax.get_title()
    assert "gradient" in ax.get_xlabel()
    assert "random" in ax.get_ylabel()
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "loss"
    assert ink(ax) > 0.3


def test_the_landscape_of_several_outputs_is_that_of_the_weighted_loss():
    use_float64()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, {name: layers.Dense(2, name=name)(inputs) for name in ("a", "b")})
    model.compile(loss={"a": "mse", "b": "mae"}, loss_weights={"a": 2.0, "b": 3.0})
    x, _ = batch((4,), samples=1)
    y = {"a": np.ones((1, 2)), "b": np.zeros((1, 2))}
    plane = loss_plane(model, x, y, resolution=2)
    corner = x - plane.u - plane.v
    outputs = {name: corner @ model.get_layer(name).get_weights()[0] for name in y}
    expected = 2 * np.mean((outputs["a"] - 1) ** 2) + 3 * np.mean(np.abs(outputs["b"]))
    assert plane.losses[0, 0] == pytest.approx(expected, rel=1e-10)


X, Y = np.zeros((1, 5), "float32"), np.zeros(1, "int64")


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((2, 5)), Y, {}, "`x` must hold one sample"),
        (np.zeros(5), Y, {}, "`x` must hold one sample"),
        (np.zeros((1, 5), "uint8"), Y, {}, "must be floating-point"),
        ([[1.0], [1.0, 2.0]], Y, {}, "`x` must hold one sample"),
        (X, np.zeros(2), {}, "`y` must hold one sample"),
        (X, 0, {}, "`y` must hold one sample"),
        (X, None, {}, "`y` must hold one sample"),
        (X, Y, {"radius": 0.0}, "`radius` must be a finite number > 0"),
        (X, Y, {"resolution": 1}, "`resolution` must be a whole number >= 2"),
        (X, Y, {"batch_size": 0}, "`batch_size` must be a whole number >= 1"),
        (X, Y, {"seed": -1}, "`seed` must be a whole number >= 0"),
        (np.full((1, 5), np.nan), Y, {}, "gradient of the loss at `x` must be finite"),
    ],
)
def test_bad_samples(x, y, options, message):
    model = dense_network()
    model.compile("sgd", logits_loss())
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: "):
        gbr.plots.loss_landscape(model, x, y, **options)
    assert not pyplot.get_fignums()


def test_models_without_a_loss_a_gradient_or_a_plane():
    model = dense_network()
    for compiled in (False, True):
        if compiled:
            model.compile("sgd")
        with pytest.raises(ValueError, match=r"`model` must be compiled with a loss.*Received"):
            gbr.plots.loss_landscape(model, X, Y)
    with pytest.raises(ValueError, match="`model` must be a built"):
        gbr.plots.loss_landscape(keras.Sequential([layers.Dense(2)]), X, Y)
    for width, kernel, message in [(5, 0.0, "not zero"), (1, 1.0, "no second direction")]:
        inputs = keras.Input((width,))
        constant = keras.initializers.Constant(kernel)
        model = keras.Model(inputs, layers.Dense(1, kernel_initializer=constant)(inputs))
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match=f"{message}.*Received: "):
            gbr.plots.loss_landscape(model, X[:, :width], np.ones((1, 1)))
