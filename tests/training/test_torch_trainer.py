"""PyTorch: operations without second derivatives, compilation, and models of other backends."""

import contextlib

import keras
import numpy as np
import pytest
import torch
from keras import layers

import keras_gbr as gbr
from keras_gbr.backend.torch import autodiff
from support.networks import batch, check_gradient, dense_network, logits_loss, mean_of, use_float64

X, Y = batch((5,))


def attention_network():
    inputs = keras.Input((4, 5))
    x = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    return gbr.GBRModel(inputs, layers.Dense(3)(layers.Flatten()(x)))


def test_attention_has_second_derivatives():
    use_float64()
    model = attention_network()
    x, y = batch((4, 5))
    check_gradient(model, mean_of(model, gbr.InputGradient(1.0), x, y))


def test_the_kernels_of_attention_without_them_are_refused(monkeypatch):
    """If PyTorch used one of them, the error would show it."""
    monkeypatch.setattr(autodiff, "sdpa_kernel", lambda kernel: contextlib.nullcontext())
    model = attention_network()
    model.compile("sgd", logits_loss(), penalties=[gbr.InputGradient(1.0)])
    with pytest.raises(ValueError, match="flash_attention"):
        model.train_on_batch(*batch((4, 5)))


class OnceDifferentiable(torch.autograd.Function):
    """The square, with a gradient that cannot be differentiated."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return 2 * x * gradient


class Square(layers.Layer):
    def call(self, x):
        return OnceDifferentiable.apply(x) if x.device.type != "meta" else x**2


def squares(head=layers.Dense):
    inputs = keras.Input((5,))
    x = Square()(layers.BatchNormalization()(layers.Dense(3)(inputs)))
    return gbr.GBRModel(inputs, head(3)(x) if head else x)


PENALTIES = {
    "InputGradient": lambda: gbr.InputGradient(0.1),
    "Jacobian": lambda: gbr.Jacobian(0.1),
    "ParameterGradient": lambda: gbr.ParameterGradient(0.1),
}


@pytest.mark.parametrize("head", [layers.Dense, None], ids=["inside", "last"])
@pytest.mark.parametrize("name", PENALTIES)
def test_an_operation_without_a_second_derivative_is_refused(name, head):
    model = squares(head)
    model.compile("sgd", logits_loss(), penalties=[PENALTIES[name]()])
    before = model.get_weights()
    with pytest.raises(
        ValueError, match=r"second derivatives.*finite_difference.*OnceDifferentiable"
    ):
        model.fit(X, Y, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_way_out_in_the_error_trains():
    model = squares()
    penalty = gbr.InputGradient(0.1, method="finite_difference")
    model.compile("sgd", logits_loss(), penalties=[penalty])
    assert model.fit(X, Y, verbose=0).history["input_gradient"][0] > 0


@pytest.mark.parametrize(
    "settings",
    [{"penalties": [gbr.Jacobian(0.1)]}, {"check_numerics": True}],
    ids=["penalties", "check_numerics"],
)
def test_compiled_steps_are_refused_and_nothing_changes(settings):
    model = dense_network()
    model.compile("sgd", logits_loss(), penalties=[gbr.InputGradient(0.1)])
    with pytest.raises(ValueError, match=r"torch.compile .* Received: jit_compile=True"):
        model.compile("adam", logits_loss(), jit_compile=True, **settings)
    assert [penalty.name for penalty in model.penalties] == ["input_gradient"]
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    model.compile("adam", logits_loss(), jit_compile=True)
    assert model.jit_compile


def test_a_model_saved_with_compiled_steps_trains_without_them():
    """TensorFlow and JAX compile steps with penalties on request, and save that."""
    model = dense_network()
    model.compile("sgd", logits_loss(), penalties=[gbr.InputGradient(0.1)])
    config = model.get_compile_config() | {"jit_compile": True}
    with pytest.warns(UserWarning, match='jit_compile=True and goes on with jit_compile="auto"'):
        model.compile_from_config(config)
    assert model.fit(X, Y, verbose=0).history["input_gradient"][0] > 0
