"""The README's examples run as they are written."""

import pathlib
import re

import keras
import numpy as np

import keras_gbr

README = pathlib.Path(__file__).parents[2] / "README.md"


def test_the_examples_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    rng = np.random.default_rng(0)
    names = {
        "x_train": rng.standard_normal((64, 32, 32, 3)).astype("float32"),
        "y_train": rng.integers(0, 10, 64),
        "x_val": rng.standard_normal((8, 32, 32, 3)).astype("float32"),
    }
    exec(examples[0], names)
    assert {"gbr", "jacobian", "accuracy"} <= set(names["model"].history.history)
    expected = names["model"].predict(names["x_val"], verbose=0)
    plain = keras.models.load_model("plain.keras")
    np.testing.assert_allclose(plain.predict(names["x_val"], verbose=0), expected, atol=1e-6)
    trained = names["model"]
    for example in examples[1:]:
        exec(example, names)
    assert isinstance(names["model"], keras_gbr.GBRModel)
    assert names["model"] is not trained
    kinds = {type(layer).__name__ for layer in names["model"].layers}
    assert "Regularized" in kinds
    assert not kinds & {"Conv2D", "Dense", "DepthwiseConv2D"}
