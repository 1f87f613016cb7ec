"""The wrappers in Keras: precision, masks, training, copies. Saving is in test_contract.py."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from support import oracles
from support.calls import assert_close, assert_equal, number, to_numpy
from support.networks import allow_float64
from support.wrapped import WRAPPERS, batch, built, plain_twin, small_model

wrappers = pytest.mark.parametrize("wrapper_name", WRAPPERS)
SINGLE = {"float16": 1e-3, "bfloat16": 8e-3}


def half_precision_layer(policy, scale, mean):
    layer = layers.Conv2D(4, 3, dtype=policy)
    layer.build((2, 6, 6, 3))
    layer.kernel.assign(scale * (batch(layer.kernel.shape, seed=5) + mean))
    return layer


@wrappers
@pytest.mark.parametrize("where", ["alone", "in a model", "in a mixed model"])
@pytest.mark.parametrize("compute", SINGLE)
def test_mixed_precision_computes_the_kernel_in_single_precision(compute, where, wrapper_name):
    policy = f"mixed_{compute}"
    if where == "in a mixed model":
        keras.config.set_dtype_policy(policy)
    # Raw entries of 1e-9 are 0 in float16, those of 1e6 infinite, and a mean of 300 leaves
    # bfloat16 no digit of the spread. In float32 it leaves 300 * 6e-8 of relative error.
    raw = [(1.0, 0.2), (1e-9, 0.2), (1e6, 0.2), (1.0, 300.0)]
    for scale, mean in raw[:1] if wrapper_name == "WeightNorm" else raw:
        layer = half_precision_layer(policy, scale, mean)
        wrapper = call = WRAPPERS[wrapper_name][0](layer)
        if where != "alone":
            inputs = keras.Input((6, 6, 3))
            call = keras.Model(inputs, wrapper(inputs))
        x = batch((2, 6, 6, 3))
        outputs = call(x)
        assert keras.backend.standardize_dtype(outputs.dtype) == compute
        assert {w.dtype for w in wrapper.weights} == {"float32"}
        assert keras.backend.standardize_dtype(wrapper.kernel.dtype) == "float32"
        expected = WRAPPERS[wrapper_name][1](layer.kernel.numpy())
        assert_close(wrapper.kernel, expected, atol=1e-4 * np.abs(expected).max())
        # The layer reads inputs and kernel in half precision, and its outputs round.
        halved = [ops.cast(ops.cast(a, compute), "float32") for a in (x, expected)]
        exact = to_numpy(ops.conv(*halved))
        error = np.abs(to_numpy(ops.cast(outputs, "float32")) - exact).max()
        assert error < 2 * SINGLE[compute] * np.abs(exact).max()


@wrappers
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_layers_of_one_precision_keep_it(dtype, wrapper_name):
    allow_float64(dtype == "float64")
    wrapper = WRAPPERS[wrapper_name][0](layers.Dense(3, dtype=dtype))
    outputs = wrapper(batch((2, 4)))
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    assert {w.dtype for w in wrapper.weights} == {dtype}
    assert np.isfinite(to_numpy(ops.cast(outputs, "float32"))).all()


@pytest.mark.parametrize("wrapper_name", ["ENC learnable", "WeightNorm"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_model_trains(policy, wrapper_name):
    keras.config.set_dtype_policy(policy)
    model = small_model(wrapper_name)
    model.compile("sgd", "mse")
    history = model.fit(batch((8, 6, 6, 2)), batch((8, 3)), epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][1] < history["loss"][0]


@wrappers
def test_masks_pass_through(wrapper_name):
    x = batch((2, 5, 4))
    x[0, 3:] = 0
    x[1, 1:] = 0
    wrapper = built(wrapper_name, layers.Dense(3), (2, 5, 4))
    masked = layers.Masking()(x)
    pooled = layers.GlobalAveragePooling1D()(wrapper(masked))
    outputs = to_numpy(wrapper(x))
    expected = [outputs[0, :3].mean(axis=0), outputs[1, :1].mean(axis=0)]
    assert_close(pooled, expected, atol=1e-5)
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(wrapper(layers.Masking()(inputs))))
    assert_close(model(x), expected, atol=1e-5)


@wrappers
def test_a_model_without_input_shape_builds_in_fit_and_keeps_the_invariant(wrapper_name):
    wrap = WRAPPERS[wrapper_name][0]
    conv = wrap(layers.Conv2D(4, 3, activation="tanh"))
    model = keras.Sequential([conv, layers.Flatten(), wrap(layers.Dense(3))])
    model.compile("adam", "mse")
    model.fit(batch((8, 6, 6, 2)), batch((8, 3)), epochs=2, verbose=0)
    raw = conv.layer.kernel.numpy()
    expected = WRAPPERS[wrapper_name][1](raw)
    if wrapper_name == "WeightNorm":
        expected = oracles.weight_norm(raw, conv.kernel_parameters[0].numpy())
        # Two steps of Adam at 0.001 leave the gain near the initial lengths.
        lengths = np.linalg.norm(oracles.as_matrix(raw), axis=0)
        assert_close(conv.kernel_parameters[0], lengths, atol=0.05)
    if wrapper_name == "ENC learnable":
        alpha = np.exp(conv.kernel_parameters[0].numpy())
        assert alpha != 0.5
        expected = oracles.equal_norm(raw, alpha)
    assert_close(conv.kernel, expected, atol=1e-5)


def test_a_shared_wrapper_has_one_kernel_and_sums_the_gradients():
    wrapper = gbr.ENC(layers.Dense(4))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, wrapper(wrapper(inputs)))
    wrapper.layer.set_weights([batch((4, 4), seed=2), batch((4,), seed=3)])
    assert len(model.trainable_weights) == 2
    kernel = oracles.equal_norm(wrapper.layer.kernel.numpy())
    bias, x = wrapper.layer.bias.numpy(), batch((2, 4))
    assert_close(model(x), (x @ kernel + bias) @ kernel + bias, atol=1e-5)


def same_outputs(one, other):
    x = batch((4, 6, 6, 2))
    assert_equal(one(x), other(x))
    assert [type(layer) for layer in one.layers] == [type(layer) for layer in other.layers]
    assert [number(loss) for loss in one.losses] == [number(loss) for loss in other.losses]


@wrappers
def test_a_model_survives_weight_files_clones_pickles_and_copies(wrapper_name, tmp_path):
    model = small_model(wrapper_name)
    model.save_weights(tmp_path / "model.weights.h5")
    clone = keras.models.clone_model(model)
    clone.load_weights(tmp_path / "model.weights.h5")
    same_outputs(clone, model)
    assert not {id(w) for w in clone.weights} & {id(w) for w in model.weights}
    same_outputs(pickle.loads(pickle.dumps(model)), model)
    same_outputs(copy.deepcopy(model), model)


@wrappers
def test_a_wrapper_of_a_built_layer_takes_its_weights(wrapper_name):
    layer = layers.Dense(3)
    x = batch((2, 4))
    layer(x)
    layer.kernel.assign(batch((4, 3), seed=8))
    wrapper = WRAPPERS[wrapper_name][0](layer)
    twin = plain_twin(layer, WRAPPERS[wrapper_name][1](layer.kernel.numpy()), (2, 4))
    assert_close(wrapper(x), twin(x), atol=1e-5)
    assert wrapper.layer is layer


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A layer whose first call, with two tensors, builds the layers inside it."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.left, self.right = layers.Dense(units), layers.Embedding(5, units)

    def call(self, x, tokens=None):
        return self.left(x) + (0.0 if tokens is None else self.right(tokens))


def test_a_layer_without_a_build_of_its_own_is_built_by_the_call():
    x, tokens = batch((2, 4)), np.array([1, 3])
    inputs = keras.Input((4,)), keras.Input((), dtype="int32")
    plain = Block(3)
    for wrapper in (gbr.ENC(plain), gbr.Regularized(gbr.ENC(Block(3)), gbr.Spectral())):
        model = keras.Model(inputs, wrapper(inputs[0], tokens=inputs[1]))
        assert model([x, tokens]).shape == (2, 3)
    enc = gbr.ENC(plain)
    outputs = to_numpy(enc(x, tokens))
    dense = oracles.equal_norm(plain.left.kernel.numpy())
    rows = oracles.equal_norm(plain.right.embeddings.numpy().T).T
    assert_close(outputs, x @ dense + rows[tokens], rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable("tests")
class OneCall(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, layers.Dense(units)

    def call(self, x):
        return self.dense(x)


def test_a_wrapped_layer_without_a_build_of_its_own_survives_saving(tmp_path):
    stack = keras.Sequential([keras.Input((4,)), gbr.ENC(OneCall(3), name="block")])
    stack.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        # Keras warns that it cannot build such a layer, wrapped or not.
        warnings.filterwarnings("ignore", r"`build\(\)` was called on layer", UserWarning)
        loaded = keras.models.load_model(tmp_path / "model.keras")
    x = batch((2, 4))
    assert_equal(loaded(x), stack(x))


def test_the_cells_of_convolutional_lstms_have_kernels():
    plain = layers.ConvLSTM2D(2, 2)
    wrapper = gbr.ENC(plain, 2.0)
    x = batch((2, 3, 5, 5, 1))
    outputs = to_numpy(wrapper(x))
    assert list(wrapper.kernels) == ["conv_lstm_cell/kernel", "conv_lstm_cell/recurrent_kernel"]
    for variable in plain.weights[:2]:
        variable.assign(oracles.equal_norm(variable.numpy(), 2.0))
    assert_close(outputs, plain(x), rtol=1e-5, atol=1e-6)
