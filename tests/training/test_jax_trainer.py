"""JAX: several devices, programs of several steps, and models after a step that fails."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.networks import batch, conv_network, dense_network, logits_loss, use_float64

pytestmark = pytest.mark.jax

X, Y = batch((6, 6, 2), samples=24)
X = X.astype("float32")


@pytest.fixture
def four_devices():
    """Whatever is built afterwards lies on four devices, which share each batch."""
    devices = keras.distribution.list_devices()
    assert len(devices) == 4
    distribution = keras.distribution.DataParallel(devices=devices)
    yield lambda: keras.distribution.set_distribution(distribution)
    keras.distribution.set_distribution(None)


def penalties():
    """Every kind; the directions of the projections follow from the seeds and the steps."""
    return [
        gbr.Jacobian(0.01, num_projections=None, name="exact"),
        gbr.Jacobian(0.01, seed=1, name="projected"),
        gbr.Jacobian(0.1, num_projections=None, of="probabilities", name="probabilities"),
        gbr.InputGradient(0.1),
        gbr.InputGradient(0.1, norm=1, target=0.5, name="to a target"),
        gbr.InputGradient(0.1, of="label_probability", name="label"),
        gbr.InputGradient(0.1, method="finite_difference", name="differences"),
        gbr.ParameterGradient(0.1),
        gbr.Adversarial(0.1, 0.1, norm=2),
        gbr.InputGradient(0.1, norm="inf", fraction=0.5, name="half"),
    ]


def trained():
    """A convolutional model with batch normalisation after six steps, and its history."""
    keras.utils.set_random_seed(3)
    model = conv_network(layers.BatchNormalization, groups=None)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, logits_loss(), penalties=penalties())
    history = model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    return model, history


def test_four_devices_train_as_one(four_devices):
    one, expected = trained()
    four_devices()
    four, history = trained()
    assert len(four.trainable_variables[0].value.devices()) == 4
    # Sums of single precision in another order; weights and values are of order 1.
    for alone, together in zip(one.get_weights(), four.get_weights(), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-6)
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)


def test_four_devices_measure_as_one(four_devices):
    found = []
    for distribute in (lambda: None, four_devices):
        distribute()
        keras.utils.set_random_seed(3)
        model = conv_network()
        model.compile("sgd", logits_loss(), penalties=[gbr.InputGradient(0.1)])
        monitor = gbr.GBRMonitor(X, Y, measures=["gbr", "check_penalty"])
        logs = model.fit(X, Y, batch_size=8, verbose=0, callbacks=[monitor]).history
        assert logs.pop("check_penalty/input_gradient") == [0]
        found.append(logs)
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-5, err_msg=name)


def small(**settings):
    """A dense model and its history after nine steps, with and without a penalty."""
    keras.utils.set_random_seed(3)
    model = dense_network()
    lazy = [gbr.InputGradient(0.1, interval=2), gbr.Jacobian(0.1, None, interval=3)]
    model.compile("sgd", logits_loss(), penalties=lazy, **settings)
    x, y = batch((5,), samples=36)
    history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0).history
    assert int(model.optimizer.iterations.value) == 9
    return model.get_weights(), history


def test_steps_with_intervals_do_not_depend_on_how_they_run(four_devices):
    use_float64()
    weights, expected = small(jit_compile=True)
    for settings in ({"steps_per_execution": 3}, {"jit_compile": False}, {}):
        if not settings:
            four_devices()
        others, history = small(**settings)
        for one, other in zip(weights, others, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-14)
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-12)


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("several", [1, 2])
def test_a_step_that_fails_leaves_the_model_intact(jit_compile, several):
    """Keras empties the variables while it trains."""
    inputs = keras.Input((5,))
    cut = layers.Lambda(keras.ops.stop_gradient)(inputs)
    model = gbr.GBRModel(inputs, layers.Dense(3)(cut))
    model.compile(
        *("adam", logits_loss()),
        penalties=[gbr.Jacobian(0.1)],
        jit_compile=jit_compile,
        steps_per_execution=several,
    )
    x, y = batch((5,), samples=8)
    before = model.get_weights()
    with pytest.raises(ValueError, match="depends on its inputs"):
        model.fit(x, y, batch_size=2, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.compile("adam", logits_loss())
    model.fit(x, y, verbose=0)
