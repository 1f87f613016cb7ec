"""apply_enc and apply_regularizer: which layers change, and that nothing else does."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from keras_gbr.layers.reparametrized import kernels_in_use
from support import oracles
from support.calls import assert_close, assert_equal, number, tensorflow_only, to_numpy
from support.networks import allow_float64
from support.wrapped import batch


def outputs(model, x):
    return [to_numpy(y) for y in keras.tree.flatten(model(x))]


def assert_same(first, second, x, rtol=1e-6):
    for one, other in zip(outputs(first, x), outputs(second, x), strict=True):
        assert_close(one, other, rtol=rtol, atol=rtol * np.abs(other).max())


def squared_norms(model):
    return [np.sum(to_numpy(kernel).astype("float64") ** 2) for _, kernel in kernels_in_use(model)]


def image_model(cls=gbr.GBRModel):
    """Nested, shared and normalised layers, and operations on tensors."""
    inner_in = keras.Input((4,))
    inner_out = layers.Dense(4, name="dense")(layers.Dense(4, "relu", name="first")(inner_in))
    inner = keras.Model(inner_in, inner_out, name="inner")
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="conv", kernel_regularizer="l2")(inputs)
    x = layers.Dropout(0.5, seed=1, name="drop")(layers.BatchNormalization(name="norm")(x))
    x = ops.mean(ops.relu(x[:, 1:]), axis=(1, 2))
    shared = layers.Dense(4, name="shared")
    x = inner(shared(x)) + shared(ops.clip(x, 0.0, 1.0))
    return cls(inputs, layers.Dense(3, name="dense")(inner(x)), name="whole")


X = batch((3, 6, 6, 2))
PATHS = ["conv", "shared", "inner/first", "inner/dense", "dense"]


def test_every_kernel_is_wrapped_and_the_rest_is_as_it_was():
    model = image_model()
    model(X, training=True)  # moves the averages of the normalisation and the dropout's seed
    model.get_layer("inner").trainable = False
    model.get_layer("conv").trainable = False
    wrapped = gbr.apply_enc(model, alpha=2.0)
    assert type(wrapped) is gbr.GBRModel
    assert wrapped.name == "whole"
    assert not wrapped.compiled
    assert [layer.name for layer in wrapped.layers] == [layer.name for layer in model.layers]
    assert isinstance(wrapped.get_layer("inner").get_layer("dense"), gbr.ENC)
    assert len(wrapped.weights) == len(model.weights)
    for old, new in zip(model.variables, wrapped.variables, strict=True):
        assert old is not new
        assert_equal(old, new)
        assert old.trainable == new.trainable
    flags = [layer.trainable for layer in model._flatten_layers()]
    inner = {id(w.layer) for w in wrapped._flatten_layers() if isinstance(w, gbr.ENC)}
    unwrapped = [layer for layer in wrapped._flatten_layers() if id(layer) not in inner]
    assert [layer.trainable for layer in unwrapped] == flags
    assert_close(squared_norms(wrapped), 2.0, rtol=1e-6)
    assert_same(gbr.strip(wrapped), wrapped, X)
    assert_same(gbr.strip(model), model, X, rtol=0)
    # The state of the dropout is a copy: both draw the same mask.
    assert_equal(gbr.strip(model)(X, training=True), model(X, training=True))


def test_the_outputs_are_those_of_the_kernels_of_numpy():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(3)])
    x = batch((2, 4))
    first, bias, second, last_bias = model.get_weights()
    hidden = np.tanh(x @ oracles.equal_norm(first, 2.0, False) + bias)
    expected = hidden @ oracles.equal_norm(second, 2.0, False) + last_bias
    wrapped = gbr.apply_enc(model, alpha=2.0, per_filter=False)
    assert_close(outputs(wrapped, x)[0], expected, rtol=1e-5, atol=1e-6)


def test_the_given_model_is_untouched():
    model = image_model()
    model.compile("adam", "mse", penalties=[gbr.Jacobian(0.1)])
    model.fit(X, batch((3, 3)), verbose=0)
    before = model.get_config(), model.layers, model.optimizer
    values = [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]
    wrapped = gbr.apply_enc(gbr.apply_regularizer(model, gbr.Spectral()))
    plain = gbr.strip(wrapped)
    assert not wrapped.compiled
    assert not plain.compiled
    wrapped.compile("sgd", "mse", penalties=[gbr.Jacobian(0.1)])
    wrapped.fit(X, batch((3, 3)), verbose=0)
    assert (model.get_config(), model.layers, model.optimizer) == before
    now = [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]
    for old, new in zip(values, now, strict=True):
        assert_equal(old, new)
    parts = [
        {id(part) for part in [*m.operations, *m._flatten_layers(), *m.variables]}
        for m in (model, wrapped, plain)
    ]
    assert not parts[0] & parts[1] | parts[1] & parts[2]
    assert model.compiled


def test_kernels_are_listed_by_layer():
    listed = gbr.list_kernels(image_model())
    assert sorted(each.path for each in listed) == sorted(PATHS)
    assert not any(each.left_alone or each.refused for each in listed)
    conv = next(each for each in listed if each.path == "conv")
    assert conv == gbr.LayerKernels("conv", "Conv2D", (("kernel", (3, 3, 2, 4)),))
    assert str(conv) == "conv (Conv2D): kernel (3, 3, 2, 4)"


def test_wrapped_layers_are_listed_as_left_alone():
    listed = gbr.list_kernels(gbr.apply_enc(image_model(), layers="conv"))
    assert len(listed) == 5
    (conv,) = [each for each in listed if each.left_alone]
    assert (conv.path, conv.layer, conv.refused) == ("conv", "ENC", "")
    assert conv.kernels == (("conv/kernel", (3, 3, 2, 4)),)
    assert str(conv).endswith("left alone: It is wrapped already, or holds a wrapped layer.")


@pytest.mark.parametrize("act", [gbr.apply_enc, lambda m, **k: gbr.apply_regularizer(m, "l2", **k)])
@pytest.mark.parametrize("value", [True, False])
def test_the_former_argument_dry_run_is_refused_with_its_replacement(act, value):
    with pytest.raises(ValueError, match=r"no argument `dry_run`.*keras_gbr\.list_kernels"):
        act(image_model(), dry_run=value)


@pytest.mark.parametrize(
    ("chosen", "paths"),
    [
        ("conv", ["conv"]),
        ("dense", ["inner/dense", "dense"]),
        ("inner/dense", ["inner/dense"]),
        ("inner", ["inner/first", "inner/dense"]),
        (["shared", "inner/first"], ["shared", "inner/first"]),
        (lambda layer: isinstance(layer, layers.Conv2D), ["conv"]),
    ],
)
def test_layers_are_chosen_by_name_and_by_function(chosen, paths):
    listed = gbr.list_kernels(image_model(), chosen)
    assert sorted(each.path for each in listed) == sorted(paths)
    assert len(squared_norms(gbr.apply_enc(image_model(), layers=chosen))) == 5


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("cnov", "with a kernel. The closest names are 'conv'.*Received: layers='cnov'"),
        ("inner/dens", "The closest names are 'inner/dense', "),
        ("norm", "must name layers with a kernel"),
        (["conv", "drop"], "Received: layers='drop'"),
        (3, "a function of a layer, a name or a list"),
        (["conv", 3], "a function of a layer, a name or a list"),
        (layers.Dense(2, name="dense"), "a function of a layer, a name or a list"),
        ([], "`layers` must choose a layer with a kernel"),
        (lambda layer: False, "`layers` must choose a layer with a kernel"),
    ],
)
def test_a_choice_of_nothing_is_refused(chosen, message):
    regularize = lambda *a, **k: gbr.apply_regularizer(*a[:1], "l2", **k)  # noqa: E731
    for act in (gbr.apply_enc, regularize, gbr.list_kernels):
        with pytest.raises(ValueError, match=message):
            act(image_model(), layers=chosen)


def test_wrapped_layers_are_left_or_refused():
    sequence = keras.Input((2, 3))
    hidden = layers.TimeDistributed(gbr.WeightNorm(layers.Dense(2)), name="hidden")(sequence)
    model = keras.Model(sequence, gbr.ENC(layers.Dense(2), name="enc")(hidden))
    assert_same(gbr.apply_enc(model), model, batch((2, 2, 3)), rtol=0)
    for name in ("hidden", "enc"):
        with pytest.raises(ValueError, match=f"'{name}' must not be wrapped already"):
            gbr.apply_enc(model, layers=name)


def test_layers_that_a_wrapper_refuses_are_named_and_can_be_left_out():
    stack = [layers.Dense(3, name=name) for name in ("lora", "quantized", "plain")]
    model = keras.Sequential([keras.Input((4,)), *stack])
    stack[0].enable_lora(2)
    stack[0].lora_kernel_b.assign(batch((2, 3)))
    stack[1].quantize("int8")
    x = batch((2, 4))
    lora, quantized, plain = gbr.list_kernels(model)
    assert "must not have LoRA enabled" in lora.refused
    assert "must not be quantized" in quantized.refused
    assert plain.refused == lora.left_alone == ""
    for act in (gbr.apply_enc, lambda *a, **k: gbr.apply_regularizer(*a, "l2", **k)):
        for name in ("lora", "quantized"):
            with pytest.raises(ValueError, match=rf"'{name}' cannot be changed; leave it out"):
                act(model, layers=name)
        with pytest.raises(ValueError, match=r"'lora' cannot be changed; leave it out"):
            act(model)
        changed = act(model, layers="plain")
        # Integers and low-rank kernels are copied as they are.
        for old, new in zip(model.weights[:-2], changed.weights[:-2], strict=True):
            assert_equal(old, new)
    assert_same(gbr.strip(changed), model, x, rtol=0)
    normalised = keras.Sequential(
        [
            keras.Input((4,)),
            layers.SpectralNormalization(layers.Dense(2, name="inner"), name="spectral"),
        ]
    )
    with pytest.raises(ValueError, match="'spectral' cannot be changed; leave it out"):
        gbr.apply_enc(normalised)
    (spectral,) = gbr.list_kernels(normalised)
    assert spectral.kernels == (("inner/kernel", (4, 2)),)
    assert "`layer` must be a Dense" in spectral.refused
    assert "; refused: " in str(spectral)


def test_a_regularizer_is_added_only_to_the_raw_kernels():
    model = image_model()
    wrapped = gbr.apply_enc(model, layers=["conv", "inner"])
    both = gbr.apply_regularizer(wrapped, keras.regularizers.L2(0.5))
    assert_same(both, wrapped, X, rtol=0)
    kernels = [w.numpy().astype("float64") for w in model.weights if w.name == "kernel"]
    expected = 0.5 * sum(np.sum(kernel**2) for kernel in kernels)
    own = 0.01 * np.sum(model.get_layer("conv").kernel.numpy().astype("float64") ** 2)
    assert len(kernels) == 5
    assert_close(number(sum(both.losses)), expected + own, rtol=1e-6)
    assert_same(gbr.strip(gbr.apply_regularizer(model, gbr.Spectral())), model, X, rtol=0)


def test_wrapped_and_regularized_models_survive_saving(tmp_path):
    model = gbr.apply_regularizer(gbr.apply_enc(image_model()), gbr.Spectral())
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded, model, X, rtol=0)
    assert_equal(sum(loaded.losses), sum(model.losses))


def test_structures_of_inputs_and_outputs_are_kept():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", optional=True)
    tokens = keras.Input((2,), dtype="int32", name="tokens")
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(5, 3)(tokens))
    result = {"sum": layers.Add()([a, embedded]), "pair": [layers.Dense(2)(a), a * 2]}
    model = gbr.GBRModel({"a": a, "b": b, "tokens": tokens}, result)
    wrapped = gbr.apply_enc(model)
    x = {"a": batch((2, 3)), "b": None, "tokens": np.array([[0, 1], [4, 2]])}
    assert set(wrapped(x)) == {"sum", "pair"}
    assert [t.dtype for t in wrapped.inputs] == ["float32", "float32", "int32"]
    assert_same(gbr.strip(wrapped), wrapped, x)


def test_operations_need_no_configuration():
    inputs = keras.Input((4, 2))
    x = ops.vectorized_map(lambda row: 2 * row, ops.clip(inputs, np.float32(-1), np.float32(1)))
    one, two = ops.split(x, 2, axis=1)
    x = ops.einsum("bij,bkj->bi", one, two) + np.arange(2, dtype="float32")
    model = keras.Model(inputs, layers.Dense(2)(x))
    wrapped = gbr.apply_enc(model)
    assert_same(gbr.strip(wrapped), wrapped, batch((3, 4, 2)))
    assert_same(gbr.strip(model), model, batch((3, 4, 2)), rtol=0)


def doubled(x):
    return 2 * x


def test_functions_of_the_user_are_kept():
    stack = [
        layers.Dense(4, activation=lambda x: ops.maximum(x, 0.5)),
        layers.Lambda(lambda x: x + 1),
        layers.TimeDistributed(layers.Dense(3, activation=doubled)),
    ]
    model = keras.Sequential([keras.Input((2, 3)), *stack])
    wrapped = gbr.apply_enc(model)
    x = batch((2, 2, 3))
    assert_same(gbr.strip(wrapped), wrapped, x)
    assert_same(gbr.strip(model), model, x, rtol=0)
    hidden = keras.Sequential([keras.Input((2, 3)), layers.TimeDistributed(stack[1])])
    assert_same(gbr.strip(hidden), hidden, x, rtol=0)


def test_every_layer_keeps_its_precision_and_state():
    allow_float64(True)
    normalisation = layers.Normalization()
    normalisation.adapt(5 * batch((9, 3)) + 2)
    first = layers.Dense(4, dtype="mixed_float16")
    model = keras.Sequential(
        [keras.Input((3,)), normalisation, first, layers.Dense(2, dtype="float64")]
    )
    wrapped = gbr.apply_enc(model)
    plain = gbr.strip(wrapped)
    policies = [layer.dtype_policy.name for layer in model.layers]
    assert [layer.dtype_policy.name for layer in plain.layers] == policies
    x = batch((2, 3))
    assert_same(plain, wrapped, x)
    assert_same(gbr.strip(model), model, x, rtol=0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = image_model()
    keras.config.set_dtype_policy("float32")
    again = gbr.apply_enc(mixed)
    assert again.dtype_policy.name == "mixed_bfloat16"
    assert_same(gbr.strip(again), again, X)


@tensorflow_only  # Other backends have no strings.
def test_vocabularies_are_copied():
    text = layers.TextVectorization(output_sequence_length=3)
    text.adapt(["a b c", "a b"])
    strings = keras.Input((), dtype="string")
    model = keras.Model(strings, layers.Embedding(6, 2)(text(strings)))
    x = ops.convert_to_tensor(np.array(["a c", "b q"]), "string")
    assert_same(gbr.strip(model), model, x, rtol=0)


def test_recurrent_layers_keep_what_their_configuration_leaves_out():
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, layers.Bidirectional(layers.LSTM(3, use_cudnn=False))(inputs))
    wrapped = gbr.apply_enc(model)
    assert wrapped.layers[1].layer.backward_layer.use_cudnn is False
    assert_close(squared_norms(wrapped), 1.0, rtol=1e-6)
    assert_same(gbr.strip(wrapped), wrapped, batch((2, 4, 3)))


class Named(gbr.GBRModel):
    """A functional model without a constructor of its own."""


class Sized(gbr.GBRModel):
    """A functional model with one."""

    def __init__(self, units):
        inputs = keras.Input((4,))
        super().__init__(inputs, layers.Dense(units)(inputs), name="sized")


class Stack(gbr.GBRMixin, keras.Sequential):
    pass


class Doubling(keras.Model):
    def __init__(self, **kwargs):
        inputs = keras.Input((4,))
        super().__init__(inputs, layers.Dense(2)(inputs), **kwargs)

    def call(self, x):
        return 2 * super().call(x)


def test_classes_are_kept_where_the_constructor_is_that_of_keras():
    inputs = keras.Input((4,))
    named = Named(inputs, layers.Dense(2)(inputs))
    stack = Stack([keras.Input((4,)), layers.Dense(2)])
    for model, cls in ((named, Named), (Sized(3), gbr.GBRModel), (stack, Stack)):
        wrapped = gbr.apply_enc(model)
        assert type(wrapped) is cls
        assert wrapped.name == model.name
        plain = gbr.strip(wrapped)
        assert not isinstance(plain, gbr.GBRMixin)
        assert_same(plain, wrapped, batch((2, 4)))
    with pytest.raises(ValueError, match="not have both a graph of layers and a `call`"):
        gbr.apply_enc(Doubling())


def test_a_variable_that_two_layers_share_is_refused():
    tokens = keras.Input((2,), dtype="int32")
    embedding = layers.Embedding(5, 3, name="embedding")
    tied = Tied(embedding, name="tied")
    model = keras.Model(tokens, tied(embedding(tokens)))
    with pytest.raises(ValueError, match="'embedding' and 'tied' must not hold the same variable"):
        gbr.apply_enc(model)
    alone = keras.Sequential([keras.Input((3,)), Tied(layers.Embedding(5, 3))])
    plain = gbr.strip(alone)
    assert plain.layers[0].embedding is not alone.layers[0].embedding
    assert_same(plain, alone, batch((2, 3)), rtol=0)


class Tied(layers.Layer):
    """Multiplies with the rows of an embedding. Its configuration holds the embedding itself."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding

    def build(self, shape):
        if not self.embedding.built:
            self.embedding.build(shape)

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))

    def get_config(self):
        return {**super().get_config(), "embedding": self.embedding}


class Made(layers.Layer):
    """A kernel that the layer makes itself."""

    def build(self, shape):
        self.weight = self.add_weight(name="weight", shape=(shape[-1], 3))
        self.shift = self.add_weight(name="shift", shape=(3,))

    def call(self, x):
        return keras.ops.matmul(x, self.weight) + self.shift


class Declared(Made):
    gbr_kernels = {"weight": -1}  # noqa: RUF012


def test_weights_that_may_be_kernels_are_listed():
    model = keras.Sequential([keras.Input((4,)), Made(name="made"), layers.Dense(2, name="dense")])
    dense, made = gbr.list_kernels(model)
    assert (dense.path, dense.left_alone) == ("dense", "")
    assert (made.path, made.kernels) == ("made", (("weight", (4, 3)),))
    assert "gbr_kernels" in str(made)
    model = keras.Sequential([keras.Input((4,)), Declared(name="made"), layers.Dense(2)])
    assert [change.left_alone for change in gbr.list_kernels(model)] == ["", ""]


def stack(normalised=False):
    """Thirteen convolutions, as in VGG16."""
    parts = [keras.Input((8, 8, 16))]
    for _ in range(13):
        parts.append(layers.Conv2D(16, 3, padding="same", activation="relu"))
        parts += [layers.BatchNormalization()] if normalised else []
    return keras.Sequential(parts)


def test_outputs_that_vanish_warn_once():
    model = stack()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small = gbr.apply_enc(model)
    told = [str(each.message) for each in caught if each.category is UserWarning]
    assert len(told) == 1
    assert re.search("has no normalisation.*`alpha`.*`layers=`", told[0])
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 16))
    sizes = [np.abs(m.predict(x, verbose=0)).max() for m in (model, small)]
    assert sizes[1] < 1e-6 * sizes[0]
    gbr.apply_enc(model, alpha=32.0)
    gbr.apply_enc(model, layers=model.layers[0].name)
    gbr.apply_enc(stack(normalised=True))
