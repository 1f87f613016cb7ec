"""Surgery on models with a `call` of their own."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from keras_gbr.layers.reparametrized import kernels_in_use
from support.calls import assert_close, assert_equal, to_numpy
from support.wrapped import batch


class Block(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first, self.second = layers.Dense(units), layers.Dense(units)

    def call(self, x):
        return x + self.second(ops.relu(self.first(x)))


class Net(gbr.GBRMixin, keras.Model):
    """Layers in attributes, lists and dicts, models inside, a weight, no `**kwargs`."""

    def __init__(self, units=4):
        super().__init__()
        self.units = units
        self.body = [layers.Dense(units, "relu"), (Block(units), None)]
        inputs = keras.Input((units,))
        inner = keras.Model(inputs, layers.Dense(units, name="in_it")(inputs), name="inner")
        self.heads = {"a": layers.Dense(2), "b": keras.Sequential([inner, layers.Dense(2)])}
        self.drop = layers.Dropout(0.5, seed=1)
        self.scale = self.add_weight(name="scale", initializer="ones")
        self.again = self.body[0]

    def call(self, x, training=False):
        x = self.body[1][0](self.again(x))
        x = self.drop(x, training=training)
        return self.scale * self.heads["a"](x) + self.heads["b"](x)


X = batch((3, 4))


def built():
    model = Net()
    model(X, training=True)
    model.scale.assign(3.0)
    model.heads["a"].trainable = False
    return model


def test_layers_in_attributes_lists_and_dicts_are_replaced():
    model = built()
    values = model.get_weights()
    wrapped = gbr.apply_enc(model, alpha=2.0)
    assert type(wrapped) is Net
    assert wrapped.name == model.name
    assert not wrapped.compiled
    assert isinstance(wrapped.body[0], gbr.ENC)
    assert wrapped.again is wrapped.body[0]
    assert wrapped.body[1][1] is None
    assert isinstance(wrapped.heads["b"].layers[0].get_layer("in_it"), gbr.ENC)
    assert [layer.name for layer in wrapped.layers] == [layer.name for layer in model.layers]
    assert [part.name for part in wrapped.body[1][0].layer._layers] == [
        part.name for part in model.body[1][0]._layers
    ]
    norms = [np.sum(to_numpy(k).astype("float64") ** 2) for _, k in kernels_in_use(wrapped)]
    assert_close(norms, [2.0] * 6, rtol=1e-6)
    for old, new in zip(model.variables, wrapped.variables, strict=True):
        assert old is not new
        assert old.trainable == new.trainable
        assert_equal(old, new)
    plain = gbr.strip(wrapped)
    assert_close(plain(X), wrapped(X), rtol=1e-6, atol=1e-6)
    assert_equal(gbr.strip(model)(X), model(X))
    assert_equal(gbr.strip(model)(X, training=True), model(X, training=True))
    for old, new in zip(values, model.get_weights(), strict=True):
        assert_equal(old, new)
    assert len(gbr.list_kernels(model)) == 5


def test_a_changed_model_trains_and_its_weights_load_into_another(tmp_path):
    model = built()
    wrapped = gbr.apply_enc(model)
    wrapped.compile("sgd", "mse", penalties=[gbr.Jacobian(0.1)])
    wrapped.fit(X, batch((3, 2)), verbose=0)
    wrapped.save_weights(tmp_path / "net.weights.h5")
    other = gbr.apply_enc(model)
    other.load_weights(tmp_path / "net.weights.h5")
    assert_equal(other(X), wrapped(X))
    assert np.abs(to_numpy(other(X)) - to_numpy(gbr.apply_enc(model)(X))).max() > 0


@keras.saving.register_keras_serializable("tests")
class Around(keras.Model):
    """A model whose configuration holds its layer."""

    def __init__(self, body, **kwargs):
        super().__init__(**kwargs)
        self.body = body

    def call(self, x, tokens=None):
        return self.body(x)

    def get_config(self):
        body = keras.saving.serialize_keras_object(self.body)
        return {**super().get_config(), "body": body}

    @classmethod
    def from_config(cls, config):
        body = keras.saving.deserialize_keras_object(config["body"])
        return cls(**{**config, "body": body})


def test_a_model_whose_configuration_holds_its_layers_survives_saving(tmp_path):
    model = Around(layers.Dense(3), name="around")
    model(X)
    wrapped = gbr.apply_enc(model)
    wrapped.save(tmp_path / "around.keras")
    loaded = keras.models.load_model(tmp_path / "around.keras")
    assert_equal(loaded(X), wrapped(X))
    assert loaded.name == "around"


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.embedding = layers.Dense(2), layers.Embedding(5, 2)

    def call(self, x, tokens=None):
        return self.dense(x["a"]) + self.embedding(tokens)


def test_several_and_structured_inputs():
    model = Two()
    x, tokens = {"a": X}, np.array([4, 0, 1])
    model(x, tokens=tokens)
    wrapped = gbr.apply_enc(model)
    assert_close(gbr.strip(wrapped)(x, tokens=tokens), wrapped(x, tokens=tokens), rtol=1e-6)
    stack = keras.Sequential([layers.Add(), layers.Dense(3)])
    stack([X, X])
    wrapped = gbr.apply_enc(stack)
    assert_close(gbr.strip(wrapped)([X, X]), wrapped([X, X]), rtol=1e-6)


class Late(keras.Model):
    def build(self, shape):
        self.dense = layers.Dense(2)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


class Unknown(keras.Model):
    def __init__(self, function):
        super().__init__()
        self.function, self.dense = function, layers.Dense(2)

    def call(self, x):
        return self.function(self.dense(x))


def test_a_model_without_configuration_is_copied():
    model = Unknown(ops.relu)
    model(X)
    wrapped = gbr.apply_enc(model)
    assert isinstance(wrapped.dense, gbr.ENC)
    assert_equal(gbr.strip(wrapped)(X), wrapped(X))
    assert_equal(gbr.strip(model)(X), model(X))


def test_what_keras_cannot_copy_is_refused():
    compiled = Unknown(ops.relu)
    compiled.compile("sgd", "mse")
    for model, message in (
        (Late(), "must create its layers in its constructor"),
        (compiled, r"Keras cannot copy 'unknown.*Give the class a `get_config\(\)`"),
    ):
        model(X)
        for act in (gbr.strip, gbr.apply_enc):
            with pytest.raises(ValueError, match=message):
                act(model)
