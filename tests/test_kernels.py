"""Every kind of layer: which kernels it has, and that it computes with those of NumPy."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from keras_gbr.kernels import kernels_of
from keras_gbr.maths.filters import as_matrix, from_matrix
from support import oracles
from support.calls import (
    assert_close,
    assert_equal,
    gradient,
    in_double_precision,
    number,
    to_numpy,
)
from support.kinds import (
    ATTENTION,
    KINDS,
    accepts,
    as_filters,
    called,
    example,
    from_filters,
    model_around,
)
from support.wrapped import WRAPPERS

kinds = pytest.mark.parametrize("kind", KINDS)
CLASSES = [gbr.ENC, gbr.ENCConv, gbr.ENCDense, gbr.WeightNorm, gbr.WeightStandardization]


def with_random_weights(kind, seed=7, **kwargs):
    """A built layer with kernels and biases other than the initial ones."""
    layer = KINDS[kind][0](**kwargs)
    model_around(kind, layer)
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.standard_normal(w.shape) + 0.2 for w in layer.get_weights()])
    return layer


def expected_kernels(layer, kind, function):
    """By variable: the result of the map for each raw kernel, by NumPy."""
    raw = {kernel.name: kernel for kernel in kernels_of(layer)}
    assert list(raw) == list(KINDS[kind][2])
    expected = {}
    for name, axes in KINDS[kind][2].items():
        value = raw[name].variable.numpy()
        mapped = function(as_filters(value, axes))
        expected[name] = raw[name].variable, from_filters(mapped, value.shape, axes)
    return expected


@kinds
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_layer_computes_with_the_kernels_of_numpy(name, kind):
    layer = with_random_weights(kind)
    before = layer.get_weights()
    expected = expected_kernels(layer, kind, WRAPPERS[name][1])
    wrapper = WRAPPERS[name][0](layer)
    x = example(kind)
    outputs = to_numpy(called(kind, wrapper, x))
    assert list(wrapper.kernels) == list(expected)
    for kernel, (_, value) in zip(wrapper.kernels.values(), expected.values(), strict=True):
        # Float32 against float64: roundings of 1e-7 of entries of at most about 5.
        assert_close(kernel, value, atol=1e-6)
    for old, new in zip(before, layer.get_weights(), strict=True):
        assert_equal(old, new)
    for variable, value in expected.values():
        variable.assign(value)
    assert_close(outputs, to_numpy(called(kind, layer, x)), atol=3e-5)


@kinds
def test_every_kernel_in_use_has_the_squared_norm_alpha(kind):
    forms = itertools.product((True, False), (True, False))
    for (per_filter, center), (alpha, learnable) in zip(
        forms, [(2.0, True), (0.5, False), (1, True), (2.0, False)], strict=True
    ):
        wrapper = gbr.ENC(KINDS[kind][0](), alpha, per_filter, center, learnable)
        model_around(kind, wrapper)
        parameters = [p for p in wrapper.kernel_parameters if p is not None]
        assert len(parameters) == learnable * len(KINDS[kind][2])
        for (name, axes), kernel in zip(
            KINDS[kind][2].items(), wrapper.kernels.values(), strict=True
        ):
            filters = as_filters(kernel, axes)
            assert np.sum(filters**2) == pytest.approx(alpha, rel=1e-5), name
            if per_filter:
                assert_close(np.sum(filters**2, axis=0), alpha / filters.shape[1], rtol=1e-5)
            if center:
                assert_close(filters.mean(axis=0 if per_filter else None), 0, atol=1e-6)


@in_double_precision
@kinds
@pytest.mark.parametrize("name", ["ENC(True, True)", "WeightNorm"])
def test_the_gradient_reaches_every_raw_kernel(name, kind):
    # JAX's attention computes in single precision; with dropout Keras uses its own attention.
    dropout = {"dropout": 0.5} if kind in ATTENTION else {}
    layer = with_random_weights(kind, dtype="float64", **dropout)
    wrapper = WRAPPERS[name][0](layer)
    x = example(kind)
    called(kind, wrapper, x)
    weights = wrapper.trainable_variables
    values = [w.numpy() for w in weights]
    states = wrapper.non_trainable_variables

    def loss(flat):
        parts, start = [], 0
        for value in values:
            parts.append(ops.reshape(flat[start : start + value.size], value.shape))
            start += value.size
        arguments = (x, x) if kind in ATTENTION else (x,)
        outputs, _ = wrapper.stateless_call(parts, states, *arguments)
        numbers = ops.cos(ops.arange(outputs.shape[-1], dtype="float64"))
        return ops.sum((outputs + 0.5 * ops.square(outputs)) * numbers)

    flat = np.concatenate([value.ravel() for value in values])
    slopes = gradient(loss, flat)
    # Random directions in place of all entries: a wrong entry shows in each of them.
    rng = np.random.default_rng(1)
    for _ in range(2):
        direction = rng.standard_normal(flat.shape)
        step = 1e-5
        ends = [number(loss(ops.convert_to_tensor(flat + s * step * direction))) for s in (1, -1)]
        # The error is of order step^2: filters of three entries bend strongly once centred.
        scale = np.linalg.norm(slopes) * np.linalg.norm(direction)
        assert np.sum(slopes * direction) == pytest.approx(
            (ends[0] - ends[1]) / (2 * step), abs=1e-6 * scale
        )
    for variable in {id(k.variable): k.variable for k in kernels_of(layer)}.values():
        (index,) = [i for i, w in enumerate(weights) if w is variable]
        start = sum(value.size for value in values[:index])
        assert np.any(slopes[start : start + values[index].size])


def shifted_l2(w, factor, epsilon):
    deviation = w.std(axis=0, ddof=1)
    n = len(w)
    return factor * np.sum((n - 1) * (deviation - epsilon) ** 2 + n * w.mean(axis=0) ** 2)


REGULARIZERS = {
    "Spectral": (lambda **k: gbr.Spectral(0.5, **k), lambda w: 0.5 * oracles.sigma(w) ** 2),
    "ShiftedL2": (lambda **k: gbr.ShiftedL2(0.3, 0.1, **k), lambda w: shifted_l2(w, 0.3, 0.1)),
}


@kinds
@pytest.mark.parametrize("name", REGULARIZERS)
def test_regularizers_see_the_filters_of_each_kernel(name, kind):
    make, oracle = REGULARIZERS[name]
    layer = with_random_weights(kind)
    raw = [kernel.variable.numpy() for kernel in kernels_of(layer)]
    axes = KINDS[kind][2].values()
    expected = [oracle(as_filters(w, a)) for w, a in zip(raw, axes, strict=True)]
    for w, a, value in zip(raw, axes, expected, strict=True):
        alone = make(filter_axis=tuple(a))(ops.convert_to_tensor(w))
        assert number(alone) == pytest.approx(value, rel=1e-5)
    wrapper = gbr.Regularized(layer, make() + keras.regularizers.L2(0.01))
    model = model_around(kind, wrapper)
    squares = sum(np.sum(w.astype("float64") ** 2) for w in raw)
    assert len(model.losses) == len(raw)
    assert number(sum(model.losses)) == pytest.approx(sum(expected) + 0.01 * squares, rel=1e-5)


@kinds
def test_the_constraint_projects_along_the_filters(kind):
    layer = with_random_weights(kind)
    for kernel, axes in zip(kernels_of(layer), KINDS[kind][2].values(), strict=True):
        w = kernel.variable.numpy()
        projected = gbr.EqualNorm(3.0, filter_axis=tuple(axes))(kernel.variable)
        expected = from_filters(oracles.equal_norm(as_filters(w, axes), 3.0), w.shape, axes)
        assert_close(projected, expected, atol=1e-6)


@in_double_precision
@pytest.mark.parametrize("axes", [-1, 0, 1, (0, 1), (2, 0), (-1, 0), (), (0, 1, 2)])
def test_a_kernel_as_a_matrix_and_back(axes):
    kernel = np.random.default_rng(0).standard_normal((2, 3, 4))
    chosen = [a % 3 for a in (axes if isinstance(axes, tuple) else (axes,))]
    matrix = as_matrix(ops.convert_to_tensor(kernel), axes)
    assert_equal(matrix, as_filters(kernel, chosen))
    assert_equal(from_matrix(matrix, kernel.shape, axes), kernel)


@pytest.mark.parametrize("axes", [2, -3, (0, 5)])
def test_an_axis_that_a_kernel_lacks_is_refused(axes):
    for part in (gbr.EqualNorm(filter_axis=axes), gbr.ShiftedL2(filter_axis=axes)):
        with pytest.raises(ValueError, match=r"`filter_axis` must name axes.*Received"):
            part(np.ones((2, 3), "float32"))


@pytest.mark.parametrize("axes", [1.0, "last", None, True, (0, 0), (0, None)])
@pytest.mark.parametrize("make", [gbr.EqualNorm, gbr.Spectral, gbr.ShiftedL2])
def test_a_value_that_is_not_an_axis_is_refused(make, axes):
    with pytest.raises(ValueError, match=r"`filter_axis` must be a whole number or a tuple"):
        make(filter_axis=axes)


def test_a_bound_on_convolutions_holds_for_depthwise_and_transposed_ones():
    """The operator norm by its matrix: the response to every unit input."""
    shape = (5, 4, 3)
    for make in (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False),
        lambda: layers.Conv2DTranspose(2, 3, padding="same", use_bias=False),
    ):
        layer = make()
        layer.build((None, *shape))
        layer.kernel.assign(np.random.default_rng(1).standard_normal(layer.kernel.shape))
        units = np.eye(np.prod(shape)).reshape(-1, *shape)
        matrix = to_numpy(layer(units.astype("float32"))).reshape(len(units), -1)
        norm = np.linalg.norm(matrix.astype("float64"), 2)
        bound = number(gbr.Spectral(1.0, "svd", operator="convolution")(layer.kernel)) ** 0.5
        assert norm <= bound * (1 + 1e-5)
        assert bound < 4 * norm


def test_for_other_kernels_the_bound_on_convolutions_is_the_spectral_norm():
    layer = with_random_weights("EinsumDense")
    wrapper = gbr.Regularized(layer, gbr.Spectral(1.0, "svd", operator="convolution"))
    model_around("EinsumDense", wrapper)
    w = as_filters(layer.kernel.numpy(), [1, 2])
    assert number(wrapper.losses[0]) == pytest.approx(oracles.sigma(w) ** 2, rel=1e-5)


@pytest.mark.parametrize("wrapper", CLASSES)
@kinds
def test_each_wrapper_takes_its_kinds_of_layer(kind, wrapper):
    layer = KINDS[kind][0]()
    if accepts(wrapper, kind):
        assert wrapper(layer).layer is layer
    else:
        with pytest.raises(ValueError, match=r"`layer` must be a .* layer\. Received: layer="):
            wrapper(layer)


def attention_with_lora():
    layer = layers.MultiHeadAttention(2, 3)
    layer.build((2, 4, 5), (2, 4, 5))
    layer._query_dense.enable_lora(2)
    return layer


def quantized_inside():
    layer = layers.TimeDistributed(layers.Dense(3))
    layer.build((2, 4, 8))
    layer.layer.quantize("int8")
    return layer


@pytest.mark.parametrize(
    ("make", "shape", "word"),
    [
        (attention_with_lora, (2, 4, 5), "LoRA"),
        (quantized_inside, (2, 4, 8), "quantized"),
        (lambda: layers.Embedding(5, 4, lora_rank=2), (2, 3), "LoRA"),
        (lambda: layers.EinsumDense("ab,bc->ac", 4, lora_rank=2), (2, 3), "LoRA"),
    ],
)
@pytest.mark.parametrize("wrap", [gbr.ENC, lambda layer: gbr.Regularized(layer, "l2")])
def test_lora_and_quantized_layers_inside_are_refused(wrap, make, shape, word):
    with pytest.raises(ValueError, match=f"`layer` must not .*{word}.*Received: layer="):
        wrap(make()).build(*([shape] * (2 if make is attention_with_lora else 1)))


def test_a_custom_layer_without_kernels_is_refused_when_built():
    class Scale(layers.Layer):
        def call(self, x):
            return 2 * x

    for wrap in (gbr.ENC, lambda layer: gbr.Regularized(layer, "l2")):
        with pytest.raises(ValueError, match=r"`layer` must have a kernel.*Received: layer="):
            wrap(Scale())(np.ones((2, 3), "float32"))


def test_a_value_that_is_not_a_regularizer_is_refused():
    for regularizer in (None, "nothing", 3, layers.Dense(2)):
        with pytest.raises(ValueError, match=r"`regularizer` must be a regularizer.*Received"):
            gbr.Regularized(layers.Dense(2), regularizer)


def test_a_regularizer_is_added_once_however_often_the_layer_is_called():
    layer = layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.5))
    wrapper = gbr.Regularized(layer, keras.regularizers.L1(0.25))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, wrapper(wrapper(inputs)))
    w = layer.kernel.numpy().astype("float64")
    expected = 0.5 * np.sum(w**2) + 0.25 * np.sum(np.abs(w))
    assert [number(loss) for loss in model.losses] == [pytest.approx(expected, rel=1e-6)]


def test_states_masks_and_keyword_arguments_reach_the_layer():
    x = example("LSTM")
    for cls in (layers.LSTM, layers.GRU):
        plain, inner = (cls(3, return_state=True, return_sequences=True) for _ in range(2))
        wrapper = gbr.ENC(inner)
        state = [np.ones((2, 3), "float32")] * (2 if cls is layers.LSTM else 1)
        mask = np.array([[True, True, False, False], [True, True, True, True]])
        outputs = wrapper(x, initial_state=state, mask=mask)
        plain(x)
        raw, used = kernels_of(inner), wrapper.kernels.values()
        in_use = {id(k.variable): value for k, value in zip(raw, used, strict=True)}
        plain.set_weights([to_numpy(in_use.get(id(w), w.value)) for w in inner.weights])
        for one, other in zip(outputs, plain(x, initial_state=state, mask=mask), strict=True):
            assert_close(one, other, atol=1e-6)
    block = gbr.ENC(KINDS["a layer of one's own"][0]())
    assert_close(block(example("Dense"), scale=3.0), 3 * block(example("Dense")))


def test_output_masks_are_those_of_the_layer():
    tokens = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])
    embedded = gbr.ENC(layers.Embedding(7, 3, mask_zero=True))(tokens)
    assert_equal(embedded._keras_mask, tokens != 0)
    whole = gbr.WeightNorm(layers.LSTM(2, return_sequences=True))(embedded)
    assert_equal(whole._keras_mask, tokens != 0)
    attended = gbr.ENC(layers.MultiHeadAttention(2, 3))
    assert_equal(attended(embedded, embedded)._keras_mask, tokens != 0)
    # The padding does not reach what attention computes.
    other = np.where(tokens == 0, 0, tokens)
    layer = layers.Embedding(7, 3, mask_zero=True)
    inputs = keras.Input((4,), dtype="int32")
    e = layer(inputs)
    model = keras.Model(inputs, gbr.ENC(layers.LSTM(2))(e))
    before = model.predict(other, verbose=0)
    layer.embeddings.assign(np.concatenate([9 * np.ones((1, 3)), layer.embeddings.numpy()[1:]]))
    assert_equal(model.predict(other, verbose=0), before)


def test_attention_scores_and_causal_masks_pass_through():
    x = example("MultiHeadAttention")
    wrapper = gbr.ENC(layers.MultiHeadAttention(2, 3))
    _, scores = wrapper(x, x, use_causal_mask=True, return_attention_scores=True)
    assert scores.shape == (2, 2, 4, 4)
    assert not np.triu(to_numpy(scores), 1).any()


def test_dropout_inside_follows_the_training_flag():
    wrapper = gbr.ENC(layers.GRU(4, dropout=0.5, recurrent_dropout=0.5, seed=1))
    x = example("GRU")
    first, second = (to_numpy(wrapper(x, training=True)) for _ in range(2))
    assert not np.allclose(first, second)
    assert_equal(wrapper(x, training=False), wrapper(x))
