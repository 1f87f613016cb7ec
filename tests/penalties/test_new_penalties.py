"""The example in the docstring of `Penalty`, run as it stands, and the penalty it defines."""

import inspect
import re

import keras
import numpy as np
import pytest

import keras_gbr as gbr
from support.calls import to_numpy

TOKENS = np.random.default_rng(0).integers(0, 10, (8, 6))
LABELS = np.arange(8) % 3


@pytest.fixture
def example():
    """The names that the code of the docstring defines."""
    (code,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(gbr.Penalty), re.S)
    names = {"__name__": "example"}
    exec(code, names)
    yield names
    keras.saving.get_custom_objects().pop("my_package>EntropyGradient")


def expected_values(model, tokens, temperature):
    """|W dH/dz|^2 for logits z = W^T h + b and the entropy H of softmax(z / T), by NumPy."""
    table, kernel, bias = (np.asarray(w, "float64") for w in model.get_weights())
    logits = table[tokens].reshape(len(tokens), -1) @ kernel + bias
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    entropy = -(p * np.log(p)).sum(axis=1, keepdims=True)
    slopes = -p * (np.log(p) + entropy) / temperature
    return ((slopes @ kernel.T) ** 2).sum(axis=1)


def test_the_value_is_that_of_numpy(example):
    model, penalty = example["model"], example["penalty"]
    values = to_numpy(penalty(model.forward_pass(keras.ops.convert_to_tensor(TOKENS))))
    np.testing.assert_allclose(values, expected_values(model, TOKENS, 2.0), rtol=1e-4)


def test_it_trains_with_interval_and_fraction(example):
    """Of two steps the first has the penalty, with twice its weight, on half of its samples."""
    model = example["model"]
    expected = expected_values(model, TOKENS[:2], 2.0).mean()
    logs = model.fit(TOKENS, LABELS, batch_size=4, shuffle=False, verbose=0).history
    np.testing.assert_allclose(logs["entropy_gradient"], [expected], rtol=1e-4)
    assert gbr.measures.check_penalty(model, TOKENS, LABELS).ok()


def test_it_is_saved_with_the_model(example, tmp_path):
    model = example["model"]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    (penalty,) = loaded.penalties
    assert penalty.get_config() == example["penalty"].get_config()
    assert (penalty.temperature, penalty.at, penalty.interval) == (2.0, "embedding", 2)
    logs = [one.train_on_batch(TOKENS, LABELS) for one in (model, loaded)]
    assert logs[0] == logs[1]


def test_everything_but_its_weight_is_fixed(example):
    example["penalty"].weight = 0.3
    with pytest.raises(AttributeError, match="`temperature` of a compiled penalty is read-only"):
        example["penalty"].temperature = 1.0
