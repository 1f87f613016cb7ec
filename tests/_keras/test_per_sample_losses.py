"""The loss of each sample is what `evaluate` returns for that sample alone."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.networks import jacobians, logits_loss, use_float64

RNG = np.random.default_rng(0)
STEPS = RNG.standard_normal((4, 5, 2))
for sample, length in enumerate((5, 3, 1, 0)):  # the last sample is completely masked
    STEPS[sample, length:] = 0.0
CLASSES = RNG.integers(0, 3, (4, 5))
IGNORED = np.where(RNG.random((4, 5)) < 0.4, -1, CLASSES)


def sequences(head=3):
    """A model of sequences whose steps of zeros are masked."""
    inputs = keras.Input((None, 2))
    x = layers.SimpleRNN(4, return_sequences=True)(layers.Masking()(inputs))
    return gbr.GBRModel(inputs, layers.Dense(head)(x))


def two_heads(kind):
    """Outputs: classes for each step and one number for the sequence, by name or in order."""
    inputs = keras.Input((5, 2))
    x = layers.Masking()(inputs)
    steps = layers.Dense(3, name="steps")(layers.SimpleRNN(4, return_sequences=True)(x))
    number = layers.Dense(1, name="number")(layers.SimpleRNN(3)(x))
    extra = layers.Dense(2, name="extra")(layers.SimpleRNN(3)(x))
    outputs = {"steps": steps, "number": number, "extra": extra}
    return gbr.GBRModel(inputs, outputs if kind == "dict" else list(outputs.values()))


def labels(kind, *names):
    given = {
        "steps": CLASSES,
        "number": RNG.standard_normal((4, 1)),
        "extra": RNG.standard_normal((4, 2)),
    }
    chosen = {name: given[name] for name in names}
    return chosen if kind == "dict" else list(chosen.values())


ALL = ("steps", "number", "extra")
CASES = {
    "masked": (sequences, {"loss": logits_loss()}, CLASSES),
    "mean of weights": (
        sequences,
        {"loss": logits_loss(reduction="mean_with_sample_weight")},
        CLASSES,
    ),
    "masked regression": (sequences, {"loss": "mse"}, RNG.standard_normal((4, 5, 3))),
    "ignored class": (sequences, {"loss": logits_loss(ignore_class=-1)}, IGNORED),
    "dict": (
        lambda: two_heads("dict"),
        {"loss": {"steps": logits_loss(), "number": "mse", "extra": "mae"},
         "loss_weights": {"steps": 0.5, "number": 2.0, "extra": 3.0}},
        labels("dict", *ALL),
    ),
    "list": (
        lambda: two_heads("list"),
        {"loss": [logits_loss(), "mse", "huber"], "loss_weights": [0.5, 2.0, 3.0]},
        labels("list", *ALL),
    ),
    "output without loss": (
        lambda: two_heads("dict"),
        {"loss": {"steps": logits_loss(), "number": None, "extra": "mse"}},
        labels("dict", *ALL),
    ),
    "output without loss, in order": (
        lambda: two_heads("list"),
        {"loss": [None, "mse", None]},
        labels("list", "number"),
    ),
    "names for outputs in order": (
        lambda: two_heads("list"),
        {"loss": {"steps": logits_loss(), "number": "mse", "extra": "mae"}},
        labels("dict", *ALL),
    ),
}  # fmt: skip


def one(structure, sample):
    return keras.tree.map_structure(lambda leaf: leaf[sample : sample + 1], structure)


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_each_sample_is_that_of_evaluate(case):
    use_float64()
    make, settings, y = CASES[case]
    model = make()
    model.compile("sgd", **settings)
    forward = model.forward_pass(STEPS, y)
    values = keras.ops.convert_to_numpy(forward.losses(forward.y_pred))
    alone = [
        model.evaluate(one(STEPS, sample), one(y, sample), verbose=0, return_dict=True)["loss"]
        for sample in range(4)
    ]
    np.testing.assert_allclose(values, alone, rtol=1e-6, atol=1e-12)


def test_a_masked_step_has_no_part_in_the_penalty():
    """Against a model of the valid steps alone."""
    use_float64()
    model = sequences()
    model.compile("sgd", logits_loss(), penalties=[gbr.InputGradient(1.0)])
    before = model.get_weights()
    value = model.train_on_batch(STEPS[1:2], CLASSES[1:2], return_dict=True)["input_gradient"]
    model.set_weights(before)

    def losses(x):
        logits = keras.ops.convert_to_numpy(model(keras.ops.convert_to_tensor(x)))
        exp = np.exp(logits)
        chosen = np.take_along_axis(exp / exp.sum(-1, keepdims=True), CLASSES[1:2, :3, None], -1)
        return -np.log(chosen).mean((1, 2))

    reference = (jacobians(losses, STEPS[1:2, :3]) ** 2).sum()
    np.testing.assert_allclose(value, reference, rtol=1e-6)


def test_padding_has_no_part_in_a_step():
    """Tokens through an LSTM with a loss of each step, against the sentence without padding."""
    use_float64()
    tokens, classes = np.array([[3, 1, 4, 0, 0]]), CLASSES[1:2]
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(7, 3, mask_zero=True, name="tokens")(ids)
    x = layers.Dense(3)(layers.LSTM(4, return_sequences=True)(x))
    model = gbr.GBRModel(ids, x)
    model.compile("sgd", logits_loss(), penalties=[gbr.InputGradient(1.0, at="tokens")])
    before = model.get_weights()
    results = []
    for length in (5, 3):
        model.set_weights(before)
        logs = model.train_on_batch(tokens[:, :length], classes[:, :length], return_dict=True)
        results.append([logs["loss"], logs["input_gradient"], *model.get_weights()])
    assert results[0][1] > 0
    for padded, alone in zip(*results, strict=True):
        np.testing.assert_allclose(padded, alone, rtol=1e-6, atol=1e-9)
