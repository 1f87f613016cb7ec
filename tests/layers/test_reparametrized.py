"""The wrappers: what they compute, with which kernel, and what reaches the raw one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from support import oracles
from support.calls import (
    assert_close,
    assert_equal,
    gradient,
    in_double_precision,
    number,
    to_numpy,
)
from support.wrapped import LAYERS, WRAPPERS, batch, built, input_shape, plain_twin

wrappers = pytest.mark.parametrize("wrapper_name", WRAPPERS)
SCALE_FREE = [name for name in WRAPPERS if name.startswith("ENC")] + ["WeightStandardization"]


# test_kernels.py compares the kernel of each wrapper over every kind of layer with NumPy. Here are
# strides, paddings and other options, each with two wrappers.
TURNS = [(*WRAPPERS, *WRAPPERS)[turn % len(WRAPPERS) :][:2] for turn in range(len(LAYERS))]


@pytest.mark.parametrize(
    ("name", "wrapper_name"),
    [(name, wrapper) for name, two in zip(LAYERS, TURNS, strict=True) for wrapper in two],
)
def test_the_output_is_that_of_the_plain_layer_with_the_kernel_of_numpy(name, wrapper_name):
    shape = input_shape(name)
    wrapper = built(wrapper_name, LAYERS[name](), shape)
    raw = wrapper.layer.kernel
    before = raw.numpy()
    expected = WRAPPERS[wrapper_name][1](before)
    # Float32 against float64: roundings of 1e-7 of entries of at most about 5.
    assert_close(wrapper.kernel, expected, atol=1e-6)
    twin = plain_twin(wrapper.layer, expected, shape)
    x = batch(shape)
    for training in (True, False):
        # Sums of at most 36 products.
        assert_close(wrapper(x, training=training), twin(x), atol=3e-5)
    assert wrapper.compute_output_shape(shape) == twin.compute_output_shape(shape)
    assert wrapper.layer.kernel is raw
    assert_equal(raw, before)


def test_a_learnable_alpha_is_the_squared_norm_and_stays_positive():
    wrapper = built("ENC learnable", layers.Dense(5), (2, 4))
    for logarithm in (-3.0, 0.0, 2.5):
        wrapper.kernel_parameters[0].assign(logarithm)
        squared = np.sum(to_numpy(wrapper.kernel).astype("float64") ** 2)
        assert squared == pytest.approx(np.exp(logarithm), rel=1e-5)
    assert {w.name for w in wrapper.trainable_weights} == {"kernel", "bias", "log_alpha"}


@pytest.mark.parametrize("name", ["dense", "conv2d grouped", "conv2d channels first"])
def test_weight_norm_does_not_change_what_a_layer_computes(name):
    x = batch(input_shape(name))
    layer = LAYERS[name](kernel_initializer="glorot_normal")
    before = to_numpy(layer(x))
    assert_close(gbr.WeightNorm(layer)(x), before, atol=1e-5)
    wrapper = gbr.WeightNorm(LAYERS[name]())
    after = to_numpy(wrapper(x))
    assert_close(wrapper.layer(x), after, atol=1e-5)


def test_the_gain_is_the_length_of_the_filters():
    wrapper = built("WeightNorm", layers.Conv2D(6, 3), (2, 8, 7, 4))
    raw = wrapper.layer.kernel.numpy()
    assert_close(
        wrapper.kernel_parameters[0], np.linalg.norm(oracles.as_matrix(raw), axis=0), rtol=1e-6
    )
    gain = batch((6,), seed=3)
    wrapper.kernel_parameters[0].assign(gain)
    assert_close(wrapper.kernel, oracles.weight_norm(raw, gain), atol=1e-6)


@pytest.mark.parametrize("name", ["dense", "conv3d valid"])
def test_standardised_filters_have_mean_zero_and_variance_one(name):
    wrapper = built("WeightStandardization", LAYERS[name](), input_shape(name))
    filters = oracles.as_matrix(to_numpy(wrapper.kernel))
    assert_close(filters.mean(axis=0), 0, atol=1e-6)
    assert_close(filters.var(axis=0), 1, rtol=1e-5)


@in_double_precision
@pytest.mark.parametrize("name", ["dense", "conv2d same strided"])
@wrappers
def test_the_gradient_reaches_the_raw_kernel_through_the_map(wrapper_name, name):
    shape = input_shape(name)
    layer = LAYERS[name](dtype="float64")
    wrapper = built(wrapper_name, layer, shape)
    raw, x = layer.kernel.numpy(), batch(shape).astype("float64")
    twin = plain_twin(layer, raw, shape)

    def loss(kernel):
        variables = [
            v.value if v is not layer.kernel else kernel for v in wrapper.trainable_variables
        ]
        outputs, _ = wrapper.stateless_call(variables, [], x)
        return ops.sum(ops.square(outputs))

    def reference(kernel):
        mapped = WRAPPERS[wrapper_name][1](kernel)
        if wrapper_name == "WeightNorm":
            mapped = oracles.weight_norm(kernel, wrapper.kernel_parameters[0].numpy())
        twin.kernel.assign(mapped)
        return number(ops.sum(ops.square(twin(x))))

    slopes = gradient(loss, raw)
    # Random directions in place of all entries: a wrong entry shows in each of them.
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = rng.standard_normal(raw.shape)
        step = 1e-5
        sides = [reference(raw + sign * step * direction) for sign in (1, -1)]
        expected = (sides[0] - sides[1]) / (2 * step)
        scale = np.linalg.norm(slopes) * np.linalg.norm(direction)
        assert np.sum(slopes * direction) == pytest.approx(expected, abs=1e-7 * scale)
    # No map depends on the scale of the raw kernel.
    assert abs(np.sum(slopes * raw)) < 1e-10 * np.linalg.norm(slopes) * np.linalg.norm(raw)


@keras.saving.register_keras_serializable("tests")
class Failing(layers.Dense):
    """A dense layer whose call fails on demand, after having read its kernel."""

    fails = False

    def call(self, inputs):
        outputs = super().call(inputs)
        if self.fails:
            raise RuntimeError("on demand")
        return outputs


@wrappers
def test_an_exception_in_the_layer_leaves_the_variable_in_place(wrapper_name):
    wrapper = built(wrapper_name, Failing(3), (2, 4))
    raw, value = wrapper.layer.kernel, wrapper.layer.kernel.numpy()
    x = batch((2, 4))
    expected = to_numpy(wrapper(x))
    wrapper.layer.fails = True
    with pytest.raises(RuntimeError, match="on demand"):
        wrapper(x)
    assert wrapper.layer.kernel is raw
    assert isinstance(raw, keras.Variable)
    assert_equal(raw, value)
    wrapper.layer.fails = False
    assert_equal(wrapper(x), expected)
    assert wrapper.layer.trainable_weights[0] is raw


@wrappers
def test_losses_are_those_of_the_plain_layer_and_of_the_raw_kernel(wrapper_name):
    shape = input_shape("conv2d valid")
    layer = layers.Conv2D(
        6, 3, activity_regularizer=keras.regularizers.L2(0.1), bias_regularizer="l1",
        kernel_regularizer=gbr.ShiftedL2(0.3, 0.1) + gbr.Spectral(0.2),
    )  # fmt: skip
    wrapper = built(wrapper_name, layer, shape)
    raw, x = layer.kernel.numpy(), batch(shape)
    twin = plain_twin(layer, WRAPPERS[wrapper_name][1](raw), shape)
    twin.kernel_regularizer = None
    twin(x)
    activity = number(twin.losses[0])
    for _ in range(2):  # A second call replaces the losses of the first.
        wrapper(x)
        found = sorted(number(loss) for loss in wrapper.losses)
        on_raw = oracles.shifted_l2(raw, 0.3, 0.1) + 0.2 * oracles.sigma(raw) ** 2
        bias = 0.01 * np.sum(np.abs(layer.bias.numpy()))
        assert found == pytest.approx(sorted([activity, on_raw, bias]), rel=1e-4)


@wrappers
def test_the_constraint_of_the_layer_acts_on_the_raw_kernel(wrapper_name):
    layer = layers.Dense(3, kernel_constraint=keras.constraints.UnitNorm(axis=0))
    model = keras.Sequential([keras.Input((4,)), WRAPPERS[wrapper_name][0](layer)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(batch((8, 4)), batch((8, 3), seed=1), epochs=2, verbose=0)
    raw = layer.kernel.numpy()
    assert_close(np.linalg.norm(raw, axis=0), 1, rtol=1e-5)


@wrappers
def test_a_frozen_wrapper_has_nothing_to_train(wrapper_name):
    wrapper = built(wrapper_name, layers.Dense(3), (2, 4))
    count = len(wrapper.weights)
    wrapper.trainable = False
    assert wrapper.trainable_weights == []
    assert len(wrapper.non_trainable_weights) == count
    model = keras.Sequential([keras.Input((4,)), wrapper, layers.Dense(2)])
    before = wrapper.get_weights()
    model.compile("sgd", "mse")
    model.fit(batch((8, 4)), batch((8, 2)), verbose=0)
    for old, new in zip(before, wrapper.get_weights(), strict=True):
        assert_equal(old, new)


CLASSES = [gbr.ENC, gbr.ENCConv, gbr.ENCDense, gbr.WeightNorm, gbr.WeightStandardization]
REFUSED = [
    layers.ReLU,
    layers.BatchNormalization,
    lambda: keras.Sequential([layers.Dense(4)]),
    lambda: layers.Dense,
    lambda: "dense",
    lambda: None,
]


@pytest.mark.parametrize("wrapper", [*CLASSES, lambda layer: gbr.Regularized(layer, "l2")])
@pytest.mark.parametrize("make", REFUSED)
def test_layers_without_a_kernel_to_replace_are_refused(make, wrapper):
    with pytest.raises(ValueError, match=r"`layer` must be a .*Received: layer="):
        wrapper(make())


@pytest.mark.parametrize("wrapper", CLASSES)
def test_a_kernel_is_replaced_once(wrapper):
    with pytest.raises(ValueError, match=r"must not be wrapped already.*Received: layer="):
        wrapper(gbr.ENC(layers.Dense(4)))
    with pytest.raises(ValueError, match=r"must not be wrapped already.*Received: layer="):
        wrapper(layers.TimeDistributed(gbr.WeightNorm(layers.Dense(4))))


def test_enc_conv_and_enc_dense_refuse_each_others_layers():
    for name, make in LAYERS.items():
        right, wrong = gbr.ENCConv, gbr.ENCDense
        if name.startswith("dense"):
            right, wrong = wrong, right
        assert right(make()).layer is not None
        with pytest.raises(ValueError, match="Received: layer="):
            wrong(make())


def with_lora():
    layer = layers.Dense(4)
    layer.build((2, 8))
    layer.enable_lora(2)
    return layer


def quantized():
    layer = layers.Dense(4)
    layer.build((2, 8))
    layer.quantize("int8")
    return layer


@pytest.mark.parametrize("wrapper", [gbr.ENC, gbr.WeightNorm])
@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: layers.Dense(4, lora_rank=2), "LoRA"),
        (lambda: layers.Conv2D(4, 3, lora_rank=2), "LoRA"),
        (with_lora, "LoRA"),
        (quantized, "quantized"),
        (lambda: layers.Dense(4, dtype="int8_from_float32"), "quantized"),
        (lambda: layers.Dense(4, dtype="float8_from_float32"), "quantized"),
    ],
)
def test_lora_and_quantized_layers_are_refused(make, word, wrapper):
    with pytest.raises(ValueError, match=f"`layer` must not .*{word}.* Received: layer="):
        wrapper(make())


@pytest.mark.parametrize(
    ("change", "word"),
    [(lambda w: w.layer.enable_lora(2), "LoRA"), (lambda w: w.layer.quantize("int8"), "quantized")],
)
def test_a_layer_that_is_changed_after_wrapping_is_refused_when_called(change, word):
    wrapper = built("ENC(True, True)", layers.Dense(4), (2, 8))
    change(wrapper)
    with pytest.raises(ValueError, match=word):
        wrapper(batch((2, 8)))


def test_the_base_wrapper_says_what_a_subclass_must_implement():
    with pytest.raises(TypeError, match="reparametrize"):
        gbr.Reparametrized(layers.Dense(3))(batch((2, 4)))
