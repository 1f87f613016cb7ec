"""strip: the same outputs from plain layers, loadable without the package."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import assert_close, assert_equal, to_numpy
from support.networks import dense_network
from support.wrapped import batch


def every_wrapper(cls=gbr.GBRModel):
    """All wrappers over all kinds of layer, with regularizers and a nested model."""
    inputs = keras.Input((8, 8, 2))
    x = gbr.ENCConv(layers.Conv2D(4, 3, groups=2, kernel_regularizer=gbr.ShiftedL2()))(inputs)
    x = layers.BatchNormalization()(x)
    x = gbr.WeightNorm(layers.Conv2D(4, 3, strides=2, activation="relu"), name="normed")(x)
    x = layers.Reshape((4, 4))(layers.Reshape((16,))(layers.AveragePooling2D(1)(x)[:, :2, :2]))
    x = gbr.WeightStandardization(layers.Conv1D(6, 2, padding="causal"))(x)
    nested_in = keras.Input((4, 6))
    nested = keras.Model(nested_in, gbr.ENC(layers.Dense(5), learnable_alpha=True)(nested_in))
    x = layers.Flatten()(nested(x))
    head = layers.Dense(
        3,
        kernel_regularizer=gbr.Spectral() + keras.regularizers.L2(1e-3),
        kernel_constraint=gbr.EqualNorm(),
        bias_regularizer=keras.regularizers.L2(1e-3),
    )
    return cls(inputs, gbr.ENCDense(head, alpha=4.0, name="head")(x))


def trained():
    model = every_wrapper()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 8, 8, 2)).astype("float32")
    model.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        penalties=[gbr.InputGradient(0.1)],
    )
    model.fit(x, rng.integers(0, 3, 16), verbose=0, epochs=2)
    return model, x


LOAD = """
import sys, keras, numpy as np
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_gbr":
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
assert "keras_gbr" not in sys.modules
"""


def test_stripped_model_is_plain_equal_and_loads_without_the_package(tmp_path):
    model, x = trained()
    before = model.get_weights()
    plain = gbr.strip(model)
    expected = model.predict(x, verbose=0)
    assert_close(plain.predict(x, verbose=0), expected, rtol=1e-6, atol=1e-6)
    everything = [plain, *plain._flatten_layers()]
    assert not any(type(part).__module__.startswith("keras_gbr") for part in everything)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in model.layers]
    assert plain.name == model.name
    assert not plain.compiled
    for old, new in zip(before, model.get_weights(), strict=True):
        assert_equal(old, new)
    plain.save(tmp_path / "plain.keras")
    np.save(tmp_path / "x.npy", x)
    paths = [str(tmp_path / name) for name in ("plain.keras", "x.npy", "y.npy")]
    done = subprocess.run([sys.executable, "-c", LOAD, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_close(np.load(paths[2]), expected, rtol=1e-6, atol=1e-6)


def test_what_keras_owns_is_kept():
    plain = gbr.strip(trained()[0])
    head = plain.get_layer("head")
    assert isinstance(head.bias_regularizer, keras.regularizers.L2)
    assert head.kernel_regularizer is None
    assert head.kernel_constraint is None
    assert plain.get_layer("normed").activation is keras.activations.relu


def test_sequential_models_and_trainable_flags():
    stack = keras.Sequential(
        [keras.Input((4,)), gbr.ENC(layers.Dense(5), name="first"), layers.Dense(2)], name="stack"
    )
    stack.layers[0].trainable = False
    plain = gbr.strip(stack)
    assert isinstance(plain, keras.Sequential)
    assert plain.name == "stack"
    assert [layer.trainable for layer in plain.layers] == [False, True]
    x = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
    assert_close(plain(x), stack(x), rtol=1e-6)


def test_shared_layers_stay_shared():
    shared = gbr.ENC(layers.Dense(4))
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], layers.Add()([shared(a), shared(b)]))
    plain = gbr.strip(model)
    assert plain.count_params() == 4 * 4 + 4
    x = [np.ones((2, 4), "float32"), np.zeros((2, 4), "float32")]
    assert_close(plain(x), model(x), rtol=1e-6)


def test_structured_inputs_and_outputs_are_kept():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    outputs = {"sum": layers.Add()([a, b]), "map": gbr.ENC(layers.Dense(2))(a)}
    model = gbr.GBRModel({"a": a, "b": b}, outputs)
    x = {"a": np.ones((2, 3), "float32"), "b": np.ones((2, 3), "float32")}
    got, expected = gbr.strip(model)(x), model(x)
    assert set(got) == {"sum", "map"}
    for name in got:
        assert_close(got[name], expected[name], rtol=1e-6)


def outputs(model, x):
    return to_numpy(model(x))


def test_wrappers_in_other_layers_are_found_in_the_configuration():
    inputs = keras.Input((2, 3))
    x = layers.TimeDistributed(gbr.ENC(layers.Dense(4), name="within"))(inputs)
    recurrent = layers.LSTM(
        3, kernel_regularizer=gbr.Spectral(), recurrent_constraint=gbr.EqualNorm()
    )
    model = keras.Model(inputs, layers.Bidirectional(recurrent)(x))
    plain = gbr.strip(model)
    assert "keras_gbr" not in json.dumps(plain.get_config())
    assert type(plain.layers[1].layer) is layers.Dense
    assert plain.layers[1].layer.name == "within"
    x = batch((2, 2, 3))
    assert_close(outputs(plain, x), outputs(model, x), rtol=1e-6, atol=1e-7)


def test_chains_of_wrappers_and_layers_with_several_kernels():
    inputs = keras.Input((4, 3))
    x = gbr.Regularized(gbr.ENC(layers.LSTM(4, return_sequences=True)), gbr.Spectral())(inputs)
    x = gbr.ENC(gbr.Regularized(layers.Dense(4), "l2"), alpha=3.0, learnable_alpha=True)(x)
    x = gbr.WeightNorm(layers.MultiHeadAttention(2, 2), name="attention")(x, x)
    x = gbr.WeightStandardization(layers.SeparableConv1D(3, 2))(x)
    model = keras.Model(inputs, x)
    model.set_weights([batch(w.shape, seed=i) for i, w in enumerate(model.get_weights())])
    plain = gbr.strip(model)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in model.layers]
    assert plain.get_layer("attention").__class__ is layers.MultiHeadAttention
    assert plain.losses == []
    assert "keras_gbr" not in json.dumps(plain.get_config())
    x = batch((2, 4, 3))
    assert_close(outputs(plain, x), outputs(model, x), rtol=1e-6, atol=1e-6)


def test_a_model_of_this_package_inside_a_layer_becomes_plain():
    inputs, sequence = keras.Input((3,)), keras.Input((4, 3))
    inner = gbr.GBRModel(inputs, gbr.ENC(layers.Dense(2))(inputs))
    model = keras.Model(sequence, layers.TimeDistributed(inner)(sequence))
    plain = gbr.strip(model)
    assert "keras_gbr" not in json.dumps(plain.get_config())
    x = batch((2, 4, 3))
    assert_close(outputs(plain, x), outputs(model, x), rtol=1e-6)


class Hidden(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.wrapped = gbr.ENC(layers.Dense(2))

    def build(self, shape):
        self.wrapped.build(shape)

    def call(self, x):
        return self.wrapped(x)


def test_what_cannot_be_stripped_is_refused():
    unbuilt = keras.Sequential([gbr.ENC(layers.Dense(2))])
    for wrong in (unbuilt, layers.Dense(2)):
        with pytest.raises(ValueError, match="`model` must be a built"):
            gbr.strip(wrong)
    hidden = keras.Sequential([keras.Input((3,)), Hidden(name="hidden")])
    with pytest.raises(ValueError, match=r"'hidden' must not create wrappers.*Wrap the layer"):
        gbr.strip(hidden)


def test_a_plain_model_is_copied():
    model = dense_network(cls=keras.Model)
    plain = gbr.strip(model)
    assert plain is not model
    for old, new in zip(model.get_weights(), plain.get_weights(), strict=True):
        assert_equal(old, new)
    plain.layers[-1].set_weights([np.zeros((7, 3)), np.zeros(3)])
    assert model.get_weights()[2].any()
