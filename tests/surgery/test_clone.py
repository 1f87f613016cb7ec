"""Layers that their configuration does not describe: copied, with nothing shared, or refused."""

import functools
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from support.calls import BACKEND, assert_equal, to_numpy
from support.wrapped import batch


class Patches(layers.Layer):
    """As in an example of keras.io: the configuration has a name, the constructor takes none."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, images):
        patches = ops.image.extract_patches(images, size=self.size)
        return ops.reshape(patches, (-1, 4, self.size**2))

    def get_config(self):
        return {**super().get_config(), "size": self.size}


class Encoder(layers.Layer):
    def __init__(self, count, units):
        super().__init__()
        self.count = count
        self.projection = layers.Dense(units)
        self.positions = layers.Embedding(count, units)

    def call(self, patches):
        return self.projection(patches) + self.positions(ops.arange(self.count)[None])

    def get_config(self):
        return {**super().get_config(), "count": self.count}  # `units` is missing


def vision_transformer():
    inputs = keras.Input((4, 4, 1))
    x = layers.Flatten()(Encoder(4, 3)(Patches(2)(inputs)))
    return keras.Model(inputs, layers.Dense(2)(x))


class Forgets(layers.Layer):
    """A layer whose configuration is valid but wrong."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return self.factor * x

    def get_config(self):
        return super().get_config()


class Everything(layers.Layer):
    """A layer with everything that it can hold and no configuration describes."""

    def __init__(self, function, units):
        super().__init__()
        self.function, self.units = function, units
        self.lock, self.local, self.module = threading.Lock(), threading.local(), np
        self.inner = [layers.Dense(units), {"second": layers.Dense(units)}]
        self.alias = self.inner[0]
        self.bound, self.part = self.scaled, functools.partial(self.scaled, 2.0)
        self.closure = lambda x: self.scale * x
        self.drop = layers.Dropout(0.5, seed=1)
        self.seed = keras.random.SeedGenerator(3)
        self.norm = layers.BatchNormalization()

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.inner[0].build(shape)
        self.inner[1]["second"].build((shape[0], self.units))
        self.norm.build((shape[0], self.units))

    def scaled(self, factor, x=1.0):
        return factor * self.scale * x

    def call(self, x, training=False):
        x = self.inner[1]["second"](self.function(self.alias(x)))
        self.add_loss(0.01 * ops.mean(x))
        x = self.drop(self.closure(self.part(x)) * self.bound(1.0), training=training)
        x = x + keras.random.normal((1,), seed=self.seed) * 0
        return self.norm(x, training=training)


class Penalty(keras.regularizers.Regularizer):
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, kernel):
        return self.weight * ops.sum(kernel * kernel)


class Clip(keras.constraints.Constraint):
    """Without `get_config`: Keras would take the default."""

    def __init__(self, limit=1.0):
        self.limit = limit

    def __call__(self, kernel):
        return ops.clip(kernel, -self.limit, self.limit)


class Around(layers.Layer):
    """Holds what it is given: a layer, a model."""

    def __init__(self, layer, function):
        super().__init__()
        self.layer, self.function = layer, function

    def build(self, shape):
        if not self.layer.built:
            self.layer.build(shape)

    def call(self, x):
        return self.function(self.layer(x))


class ByCall(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function, self.dense = function, layers.Dense(3)

    def call(self, x):
        return self.function(self.dense(x))


def in_a_row(layer):
    return keras.Sequential([keras.Input((5,)), layer, layers.Dense(2)])


def network():
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(4, "relu")(inputs)))


def custom_settings():
    return layers.Dense(3, kernel_regularizer=Penalty(0.3), kernel_constraint=Clip(0.1))


KINDS = {
    "vision transformer": vision_transformer,
    "forgotten argument": lambda: in_a_row(Forgets(3.0)),
    "everything": lambda: in_a_row(Everything(lambda x: x * x, 4)),
    "settings of one's own": lambda: in_a_row(custom_settings()),
    "a layer": lambda: in_a_row(Around(layers.Dense(3), ops.tanh)),
    "a model": lambda: in_a_row(Around(network(), ops.tanh)),
    "built by its call": lambda: in_a_row(ByCall(ops.tanh)),
}


def values(model):
    return [to_numpy(variable) for variable in model.variables]


@pytest.mark.parametrize("name", KINDS)
def test_a_copy_is_equal_and_shares_nothing(name, tmp_path):
    model = KINDS[name]()
    x = batch((4, *model.input_shape[1:]))
    plain, wrapped = gbr.strip(model), gbr.apply_enc(model)
    regularized = gbr.apply_regularizer(model, gbr.ShiftedL2(1e-3))
    assert_equal(plain(x), model(x))
    assert_equal(gbr.strip(wrapped)(x), wrapped(x))
    assert_equal(gbr.strip(regularized)(x), model(x))
    assert_equal(plain.losses, model.losses)
    held = {id(variable) for variable in model.variables}
    for copy in (plain, wrapped, regularized):
        assert held.isdisjoint(id(variable) for variable in copy.variables)
    plain.save_weights(tmp_path / "copy.weights.h5")
    model.load_weights(tmp_path / "copy.weights.h5")
    before = values(model)
    wrapped.compile(keras.optimizers.SGD(0.1), "mse")
    plain.compile(keras.optimizers.SGD(0.1), "mse")
    for copy in (wrapped, plain):
        copy.fit(x, np.zeros((4, 2)), verbose=0)
    assert any(np.any(a != to_numpy(b)) for a, b in zip(before, plain.variables, strict=True))
    for old, now in zip(before, values(model), strict=True):
        assert_equal(now, old)


def test_settings_without_configuration_keep_their_values():
    dense = gbr.strip(in_a_row(custom_settings())).layers[0]
    assert dense.kernel_constraint.limit == 0.1
    assert dense.kernel_regularizer.weight == 0.3


def test_quantization_adapters_and_precision_are_kept():
    def made(**kwargs):
        return keras.Sequential([keras.Input((5,)), Around(layers.Dense(3, **kwargs), ops.tanh)])

    x = batch((4, 5))
    quantized, adapted, half = made(), made(), made(dtype="mixed_bfloat16")
    quantized.layers[0].layer.quantize("int8")
    adapted.layers[0].layer.enable_lora(1)
    for model in (quantized, adapted, half):
        plain = gbr.strip(model)
        assert_equal(plain(x), model(x))
        old, new = model.layers[0].layer, plain.layers[0].layer
        assert (old.dtype_policy, old.lora_enabled) == (new.dtype_policy, new.lora_enabled)


def test_wrappers_inside_a_copy_are_taken_out():
    inner = gbr.ENC(layers.Dense(3, kernel_regularizer=gbr.Spectral(0.1)))
    model = in_a_row(Around(inner, ops.tanh))
    plain = gbr.strip(model)
    assert type(plain.layers[0].layer) is layers.Dense
    assert plain.losses == []
    x = batch((4, 5))
    assert_equal(plain(x), model(x))
    assert isinstance(model.layers[0].layer, gbr.ENC)


def test_what_cannot_be_copied_is_named():
    def endless():
        yield 1

    layer = Around(layers.Dense(3), ops.tanh)
    layer.source = endless()
    with pytest.raises(ValueError, match=r"Keras cannot copy 'around.*'source' of .*get_config"):
        gbr.strip(in_a_row(layer))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Only for TensorFlow.")
@pytest.mark.parametrize("is_lambda", [False, True])
def test_a_vectorization_with_a_function(is_lambda):
    import tensorflow as tf

    def lower(text):
        return tf.strings.lower(text)

    function = (lambda text: tf.strings.lower(text)) if is_lambda else lower
    vectorize = layers.TextVectorization(
        max_tokens=20, standardize=function, output_sequence_length=4
    )
    vectorize.adapt(["a b c", "B c d"])
    inputs = keras.Input((1,), dtype="string")
    x = layers.Flatten()(layers.Embedding(20, 3)(vectorize(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    text = tf.constant([["a b"], ["D c"]])
    assert_equal(gbr.strip(model)(text), model(text))
    wrapped = gbr.apply_enc(model)
    assert_equal(gbr.strip(wrapped)(text), wrapped(text))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Only for TensorFlow.")
def test_functions_and_tables_of_tensorflow():
    import tensorflow as tf

    class Graph(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function, self.dense = function, layers.Dense(3)
            self.graph = tf.function(self.inner)
            keys = tf.lookup.KeyValueTensorInitializer([1, 2], [3, 4])
            self.table = tf.lookup.StaticHashTable(keys, 0)

        def build(self, shape):
            self.dense.build(shape)

        def inner(self, x):
            return self.function(self.dense(x))

        def call(self, x):
            return self.graph(x) + tf.cast(self.table.lookup(tf.constant(1)), "float32")

    model, x = in_a_row(Graph(tf.tanh)), batch((4, 5))
    model(x)
    plain = gbr.strip(model)
    expected = to_numpy(model(x))
    assert_equal(plain(x), expected)
    model.layers[0].dense.kernel.assign(0 * model.layers[0].dense.kernel)
    assert_equal(plain(x), expected)


@pytest.mark.skipif(BACKEND != "torch", reason="Only for PyTorch.")
def test_modules_of_torch():
    import torch

    class Module(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function
            self.net = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3))

        def call(self, x):
            return self.function(self.net(x))

        def compute_output_spec(self, x):
            return keras.KerasTensor((x.shape[0], 3))

    model, x = in_a_row(Module(torch.tanh)), batch((4, 5))
    plain = gbr.strip(model)
    assert_equal(plain(x), model(x))
    held = {id(parameter) for parameter in model.parameters()}
    own = [id(parameter) for parameter in plain.parameters()]
    assert len(own) == len(list(model.parameters()))
    assert held.isdisjoint(own)
