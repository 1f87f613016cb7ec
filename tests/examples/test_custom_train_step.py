"""The example with a custom train step, against the step of the package."""

import keras
import numpy as np
import pytest

import keras_gbr as gbr
from support.calls import BACKEND
from support.scripts import load

pytestmark = pytest.mark.jax


@pytest.fixture
def example(monkeypatch):
    return load("custom_train_step.py", monkeypatch)


def data():
    x = np.random.default_rng(0).standard_normal((32, 8)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32")


def trained(cls, weight):
    keras.utils.set_random_seed(3)
    x, y = data()
    model = cls()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    penalties = [gbr.InputGradient(weight), gbr.ParameterGradient(weight, interval=2)]
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"], penalties=penalties)
    logs = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    return model.get_weights(), logs


def test_the_step_of_the_example_is_that_of_the_package(example):
    """The same weights and logs after eight steps, intervals included."""
    own, own_logs = trained(example.NETS[BACKEND], 0.5)
    whole, logs = trained(example.Net, 0.5)
    for one, other in zip(own, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for name in ("loss", "accuracy", "input_gradient"):
        np.testing.assert_allclose(own_logs[name], logs[name], rtol=1e-5)
    plain, _ = trained(example.NETS[BACKEND], 0.0)
    assert np.abs(plain[0] - own[0]).max() > 1e-3


def test_a_penalty_of_a_model_that_is_not_compiled(example):
    """For one linear unit the gradient is its kernel."""
    inputs = keras.Input((8,))
    critic = gbr.GBRModel(inputs, keras.layers.Dense(1)(inputs))
    expected = (np.linalg.norm(critic.get_weights()[0]) - 1) ** 2
    value = example.slope_penalty(critic, keras.ops.convert_to_tensor(data()[0]))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(value), expected, rtol=1e-5)


def test_the_example_runs(example, capsys):
    example.main(["--epochs", "1"])
    assert "input_gradient" in capsys.readouterr().out


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_parameter_gradients_of_a_model_that_its_first_step_builds(example, run_eagerly):
    """The value of the first step is the squared length of the plain step that it takes."""
    x, y = data()
    keras.utils.set_random_seed(3)
    model = example.Net()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    penalty = gbr.ParameterGradient(0.0)
    model.compile(keras.optimizers.SGD(1.0), loss, penalties=[penalty], run_eagerly=run_eagerly)
    value = model.fit(x, y, batch_size=32, verbose=0).history["parameter_gradient"][0]
    keras.utils.set_random_seed(3)
    built = example.Net()
    built(x)
    moved = zip(built.get_weights(), model.get_weights(), strict=True)
    np.testing.assert_allclose(value, sum(((a - b) ** 2).sum() for a, b in moved), rtol=1e-4)
