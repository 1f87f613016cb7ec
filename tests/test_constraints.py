"""The equal norm constraint as a projection during training."""

import json

import keras
import numpy as np
import pytest

import keras_gbr as gbr
from support import oracles
from support.calls import random_kernel

pytestmark = pytest.mark.jax

FORMS = [(per_filter, center) for per_filter in (True, False) for center in (True, False)]
forms = pytest.mark.parametrize(("per_filter", "center"), FORMS)


@forms
@pytest.mark.parametrize("alpha", [0.5, 1, 2.0])
@pytest.mark.parametrize("shape", [(7, 3), (3, 3, 2, 4)])
def test_the_projection_is_that_of_numpy_and_idempotent(shape, alpha, per_filter, center):
    kernel = random_kernel(*shape, dtype="float32")
    constraint = gbr.EqualNorm(alpha, per_filter, center)
    projected = constraint(kernel)
    expected = oracles.equal_norm(kernel, alpha, per_filter, center)
    # Entries are at most 1.4; float32 rounds them and the sum to about 1e-7.
    np.testing.assert_allclose(projected, expected, atol=5e-7)
    np.testing.assert_allclose(constraint(projected), projected, atol=5e-7)


@forms
def test_the_kernel_satisfies_the_constraint_after_fit(per_filter, center):
    constraint = gbr.EqualNorm(2.0, per_filter, center)
    conv = keras.layers.Conv2D(4, 3, kernel_constraint=constraint, activation="tanh")
    dense = keras.layers.Dense(3, kernel_constraint=constraint)
    model = keras.Sequential([keras.Input((6, 6, 2)), conv, keras.layers.Flatten(), dense])
    model.compile("adam", "mse")
    start = [layer.kernel.numpy() for layer in (conv, dense)]
    rng = np.random.default_rng(0)
    model.fit(rng.standard_normal((8, 6, 6, 2)), rng.standard_normal((8, 3)), 4, verbose=0)
    for layer, before in zip((conv, dense), start, strict=True):
        kernel = layer.kernel.numpy()
        assert np.sum(np.square(kernel, dtype="float64")) == pytest.approx(2.0, rel=1e-5)
        # A fixed point of the map: every filter has its share, and its mean is 0.
        expected = oracles.equal_norm(kernel, 2.0, per_filter, center)
        np.testing.assert_allclose(kernel, expected, atol=1e-6)
        # It has learnt: it is not just the projected start.
        drift = kernel - oracles.equal_norm(before, 2.0, per_filter, center)
        assert np.max(np.abs(drift)) > 1e-4


def test_a_layer_with_the_constraint_survives_saving(tmp_path):
    constraint = gbr.EqualNorm(0.5, per_filter=False)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, kernel_constraint=constraint)]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0].kernel_constraint
    assert isinstance(loaded, gbr.EqualNorm)
    assert loaded.get_config() == constraint.get_config()
    assert constraint.get_config() == {
        "alpha": 0.5,
        "per_filter": False,
        "center": True,
        "filter_axis": -1,
    }
    config = json.loads(json.dumps(keras.constraints.serialize(constraint)))
    assert keras.constraints.deserialize(config).get_config() == constraint.get_config()


def test_zeros_stay_zeros():
    kernel = random_kernel(5, 3, dtype="float32")
    kernel[:, 0] = 0
    projected = np.asarray(gbr.EqualNorm()(kernel))
    np.testing.assert_array_equal(projected[:, 0], 0)
    assert np.isfinite(projected).all()
