"""Every backend provides what `backend/contract.py` describes: names, arguments, defaults."""

import ast
import importlib
import inspect
import pathlib

import keras
import pytest

import keras_gbr as gbr
from keras_gbr import backend
from keras_gbr.backend import contract

NAMES = [name for name in vars(contract.Backend) if not name.startswith("_")]
CHOSEN = importlib.import_module(f"keras_gbr.backend.{keras.backend.backend()}")
FOLDER = pathlib.Path(backend.__file__).parent


@pytest.mark.parametrize("name", ["tensorflow", "jax", "torch"])
def test_each_package_exports_the_names_and_no_others(name):
    tree = ast.parse((FOLDER / name / "__init__.py").read_text())
    (exported,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    assert sorted(exported) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_backend_in_use_has_the_signature(name):
    _, *expected = inspect.signature(getattr(contract.Backend, name)).parameters.values()
    actual = inspect.signature(getattr(CHOSEN, name)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in actual] == [
        (p.name, p.kind, p.default) for p in expected
    ]
    assert getattr(backend, name) is getattr(CHOSEN, name)


def test_a_recording_is_as_the_contract_describes_it():
    x = keras.ops.convert_to_tensor([1.0, 2.0])

    def function(inputs, watch):
        return watch("squares", inputs[0] ** 2)

    recording = backend.record(function, [x], watches=True)
    assert isinstance(recording, contract.Recording)
    assert list(recording.watched) == ["squares"]
    sources = [x, *recording.watched["squares"]]
    by_input, by_square = recording.gradients(lambda output: 3.0 * output, sources)
    assert keras.ops.convert_to_numpy(by_input).tolist() == [6.0, 12.0]
    assert keras.ops.convert_to_numpy(by_square).tolist() == [3.0, 3.0]
    expected = inspect.signature(contract.Gradients.__call__).parameters.values()
    actual = inspect.signature(recording.gradients).parameters.values()
    assert [(p.name, p.default) for p in actual] == [(p.name, p.default) for p in expected][1:]


def test_the_errors_are_public_value_errors():
    for name in ("MissingDerivativeError", "MissingSecondDerivativeError"):
        error = getattr(gbr, name)
        assert issubclass(error, ValueError)
        assert error.__name__ == name
