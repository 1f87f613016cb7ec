"""Penalties at the output of an inner layer."""

import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from keras_gbr._keras.layer_outputs import layer_at, replaced_outputs
from support.calls import STEPS, to_numpy
from support.networks import (
    batch,
    check_gradient,
    cross_entropies,
    jacobians,
    logits_loss,
    mean_of,
    use_float64,
)


def text_model(nested=False):
    """Token ids to three classes."""
    tokens = keras.Input((4,), dtype="int32")
    embedding = layers.Embedding(9, 3, mask_zero=True, name="embedding")
    if nested:
        embedding = keras.Sequential([keras.Input((4,), dtype="int32"), embedding], name="front")
    x = layers.GlobalAveragePooling1D(name="pool")(embedding(tokens))
    x = layers.Dense(5, activation="tanh", name="hidden")(x)
    return gbr.GBRModel(tokens, layers.Dense(3, name="head")(x))


def rest_of(model):
    """The model after the embedding, as a function of the embedded tokens."""
    pool, hidden, head = (model.get_layer(name) for name in ("pool", "hidden", "head"))
    return lambda x, mask: to_numpy(
        head(hidden(pool(ops.convert_to_tensor(x), mask=ops.convert_to_tensor(mask))))
    )


TOKENS = np.array([[1, 2, 0, 0], [3, 4, 5, 1], [8, 1, 1, 0]], "int32")
LABELS = np.array([0, 2, 1])
PENALTIES = {
    "InputGradient": gbr.InputGradient(1.0, norm=1, at="embedding"),
    "Jacobian": gbr.Jacobian(1.0, None, at="embedding"),
    "Adversarial": gbr.Adversarial(1.0, 0.5, 2, at="embedding"),
}


def by_differences(name, model):
    """The penalties' values from the second part of the model."""
    table = model.get_weights()[0]
    embedded, mask, rest = table[TOKENS], TOKENS != 0, rest_of(model)
    logits = jacobians(lambda x: rest(x, mask), embedded)
    losses = jacobians(lambda x: cross_entropies(rest(x, mask), LABELS), embedded)[:, 0]
    if name == "InputGradient":
        return np.abs(losses).sum(1) ** 2
    if name == "Jacobian":
        return (logits**2).sum((1, 2))
    steps = 0.5 * losses / np.linalg.norm(losses, axis=1, keepdims=True)
    return cross_entropies(rest(embedded + steps.reshape(embedded.shape), mask), LABELS)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_values_at_the_embedding_are_those_of_the_model_after_it(name, nested):
    use_float64()
    model = text_model(nested)
    model.compile("sgd", logits_loss(), penalties=[PENALTIES[name]])
    forward = model.forward_pass(ops.convert_to_tensor(TOKENS), ops.convert_to_tensor(LABELS))
    np.testing.assert_allclose(
        to_numpy(PENALTIES[name](forward)), by_differences(name, model), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("name", ["InputGradient", "Jacobian"])
def test_gradients_agree_with_differences(name):
    use_float64()
    model = text_model()
    check_gradient(model, mean_of(model, PENALTIES[name], TOKENS, LABELS))


@pytest.mark.parametrize("mode", STEPS)
def test_a_text_model_trains_and_is_left_as_it_was(mode, tmp_path):
    model = text_model()
    adam = keras.optimizers.Adam(0.01)
    model.compile(adam, logits_loss(), penalties=list(PENALTIES.values()), **STEPS[mode])
    model.build(TOKENS.shape)
    history = model.fit(TOKENS, LABELS, epochs=5, verbose=0).history
    assert history["jacobian"][-1] < history["jacobian"][0]
    assert history["adversarial"][-1] < history["adversarial"][0]
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    expected = model.predict(TOKENS, verbose=0)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(TOKENS, verbose=0), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [p.get_config() for p in loaded.penalties] == [p.get_config() for p in model.penalties]
    assert np.isfinite(loaded.train_on_batch(TOKENS, LABELS)).all()


def test_calls_of_a_shared_layer_count_as_one_vector():
    use_float64()
    shared = layers.Dense(2, name="shared")
    left, right = keras.Input((3,)), keras.Input((3,))
    outputs = layers.Dense(4)(layers.Concatenate()([shared(left), shared(right)]))
    model = gbr.GBRModel([left, right], outputs)
    x = [ops.convert_to_tensor(batch((3,), seed=s)[0]) for s in (0, 1)]
    model.compile("sgd", penalties=[gbr.Jacobian(1.0, None, at="shared")])
    exact = to_numpy(model.penalties[0](model.forward_pass(x)))
    np.testing.assert_allclose(exact, np.full(4, (model.get_weights()[2] ** 2).sum()), rtol=1e-12)


def test_a_wrapped_layer_keeps_its_own_call():
    inputs = keras.Input((3,))
    wrapped = gbr.ENCDense(layers.Dense(2), name="wrapped")
    model = gbr.GBRModel(inputs, layers.Dense(1)(wrapped(inputs)))
    own = vars(wrapped)["call"]
    model.compile("sgd", "mse", penalties=[gbr.InputGradient(1.0, at="wrapped")])
    model.fit(np.ones((2, 3)), np.ones((2, 1)), verbose=0)
    assert vars(wrapped)["call"] is own


def test_a_failure_inside_leaves_the_layer_as_it_was():
    layer = layers.Dense(2)
    layer.build((None, 3))
    with pytest.raises(ZeroDivisionError), replaced_outputs(layer, lambda tensor: 1 / 0):
        layer(np.ones((1, 3)))
    assert "call" not in vars(layer)
    with replaced_outputs(layer, lambda tensor: tensor * 0):
        assert not np.any(to_numpy(layer(np.ones((1, 3)))))


def test_names_that_do_not_fit_are_refused_before_a_step():
    model = text_model()
    weights = model.get_weights()
    for penalty, message in (
        (
            gbr.InputGradient(1.0, at="embeddings"),
            "`at` must name a layer or an input.*The closest names are 'embedding'",
        ),
        (gbr.InputGradient(1.0), r'at="embedding".*Received: inputs of dtypes \[.int32.\]'),
    ):
        model.compile("sgd", logits_loss(), penalties=[penalty])
        with pytest.raises(ValueError, match=message):
            model.fit(TOKENS, LABELS, verbose=0)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_name_that_two_layers_have_is_refused():
    parts = [keras.Sequential([keras.Input((2,)), layers.Dense(2, name="d")], name=n) for n in "ab"]
    inputs = keras.Input((2,))
    model = gbr.GBRModel(inputs, parts[1](parts[0](inputs)))
    with pytest.raises(ValueError, match="2 have this name"):
        layer_at(model, "d")


def test_a_layer_that_is_not_called_or_has_whole_numbers_is_refused():
    inputs = keras.Input((2,))
    rounded = layers.Lambda(lambda x: ops.cast(x, "int32"), name="rounded")(inputs)
    x = ops.cast(rounded, "float32") + inputs
    model = gbr.GBRModel(inputs, layers.Dense(1)(x))
    model.compile("sgd", penalties=[gbr.Jacobian(1.0, at="rounded")])
    with pytest.raises(ValueError, match="has a floating-point output"):
        model.penalties[0](model.forward_pass(ops.ones((1, 2))))
