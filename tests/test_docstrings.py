"""The docstrings of all public names: complete, and with examples that run."""

import inspect
import re
import textwrap

import keras
import matplotlib
import numpy as np
import pytest

import keras_gbr
from keras_gbr import measures, plots

matplotlib.use("Agg")

MODULES = {"keras_gbr": keras_gbr, "measures": measures, "plots": plots}
PUBLIC = {
    f"{prefix}.{name}": getattr(module, name)
    for prefix, module in MODULES.items()
    for name in module.__all__
    if not inspect.ismodule(getattr(module, name))
}
CLASSES = {name: one for name, one in PUBLIC.items() if inspect.isclass(one)}
# Names without a paper: they combine, wrap or show what others do.
WITHOUT_SOURCE = {
    "keras_gbr.ForwardPass",
    "keras_gbr.GBRMixin",
    "keras_gbr.GBRModel",
    "keras_gbr.LayerKernels",
    "keras_gbr.MissingDerivativeError",
    "keras_gbr.MissingSecondDerivativeError",
    "keras_gbr.Regularized",
    "keras_gbr.Reparametrized",
    "keras_gbr.Sum",
    "keras_gbr.apply_regularizer",
    "keras_gbr.list_kernels",
    "keras_gbr.strip",
    "measures.Comparison",
    "measures.Estimate",
    "measures.GradientTransfer",
    "measures.PenaltyCheck",
    "measures.WeightBound",
    "measures.check_penalty",
    "measures.kernel_norms",
    "plots.kernel_norms",
    "plots.loss_landscape",
}


def own_methods():
    """The public methods and properties of public classes, except those that Keras documents."""
    found = {}
    for name, cls in CLASSES.items():
        known = {keras.Model, *(c for c in cls.__mro__ if c.__module__.split(".")[0] == "keras")}
        for attribute, value in inspect.getmembers(cls):
            is_function = inspect.isfunction(value) or isinstance(value, property)
            is_new = not attribute.startswith("_") and not any(hasattr(c, attribute) for c in known)
            if is_function and is_new and attribute not in ("get_config", "from_config"):
                owner = next(c for c in cls.__mro__ if attribute in vars(c))
                text = documentation(cls, attribute)
                found.setdefault((owner, attribute), (f"{name}.{attribute}", value, text))
    return {name: (value, text) for name, value, text in found.values()}


def documentation(cls, attribute):
    """The docstrings of a method of a class, and of those that it overrides."""
    texts = (vars(c)[attribute].__doc__ for c in cls.__mro__ if attribute in vars(c))
    return "\n\n".join(inspect.cleandoc(text) for text in texts if text)


def docstring(one):
    return inspect.cleandoc(one.__doc__ or "")


def parameters(one):
    names = inspect.signature(one).parameters.values()
    return [p.name for p in names if p.name != "self" and p.kind is not p.VAR_POSITIONAL]


def section(text, title):
    """The body of a section of a docstring, empty if there is none."""
    match = re.search(rf"^{title}:\n((?:[ ]+.*\n|\n)*)", text + "\n", re.MULTILINE)
    return textwrap.dedent(match.group(1)) if match else ""


def described(text, *titles):
    """The names that the sections of docstrings describe."""
    body = "\n".join(section(part, t) for t in titles for part in re.split(r"\n(?=\S+:\n)", text))
    return set(re.findall(r"^\**(\w+):", body, re.MULTILINE))


METHODS = own_methods()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_describe_their_arguments(name):
    text = docstring(PUBLIC[name])
    assert text, "no docstring"
    if issubclass(CLASSES.get(name, object), Exception):
        return
    known = described(text, "Args", "Attributes")
    if name in CLASSES:
        known |= described(docstring(PUBLIC[name].__init__), "Args")
    missing = set(parameters(PUBLIC[name])) - known
    assert not missing, f"not described in Args or Attributes: {missing}"


@pytest.mark.parametrize("name", METHODS)
def test_public_methods_describe_their_arguments(name):
    method, text = METHODS[name]
    assert text, "no docstring"
    if inspect.isfunction(method):
        missing = set(parameters(method)) - described(text, "Args")
        assert not missing, f"not described in Args: {missing}"


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - WITHOUT_SOURCE))
def test_methods_of_papers_name_them_with_the_year(name):
    reference = section(docstring(PUBLIC[name]), "Reference")
    is_pointer = re.search(r"See `(\w+)`", reference)
    if is_pointer:
        reference = section(docstring(getattr(keras_gbr, is_pointer.group(1))), "Reference")
    assert re.search(r"\b(19|20)\d\d\b", reference), "no `Reference:` with a year"


def prelude():
    """What every example may use."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="tanh", name="conv")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras_gbr.GBRModel(inputs, keras.layers.Dense(3, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return {
        "keras": keras,
        "keras_gbr": keras_gbr,
        "np": np,
        "model": model,
        "loss": loss,
        **{name: rng.standard_normal((8, 8, 8, 1)).astype("float32") for name in ("x", "x_val")},
        **{name: rng.integers(0, 3, 8) for name in ("y", "y_val")},
        "x_train": rng.standard_normal((16, 8, 8, 1)).astype("float32"),
        "y_train": rng.integers(0, 3, 16),
    }


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", docstring(PUBLIC[name]), re.DOTALL)
    assert blocks, "no example"
    names = prelude()
    for block in blocks:
        exec(compile(block, f"<example of {name}>", "exec"), names)
    matplotlib.pyplot.close("all")
