"""Data of every type: a penalty takes them as the model does, or says why it cannot."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from support.calls import BACKEND, number

pytestmark = pytest.mark.jax

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["uint8", "int8", "uint16", "int32", "int64", "bool"]
RNG = np.random.default_rng(0)
NUMBERS = RNG.standard_normal((4, 3)).astype("float32")


def data(dtype):
    """Numbers of a type, small enough for all of them."""
    if dtype in FLOATS:
        return RNG.standard_normal((4, 3)).astype(dtype)
    return RNG.integers(0, 2 if dtype == "bool" else 4, (4, 3)).astype(dtype)


class Sequential(gbr.GBRMixin, keras.Sequential):
    pass


class Net(gbr.GBRMixin, keras.Model):
    """A model with a `call` of its own, for one input or a list of two."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, activation="tanh", name="dense")

    def call(self, x):
        parts = [ops.cast(part, "float32") for part in keras.tree.flatten(x)]
        return self.dense(parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1))

    def get_layer(self, name):
        return self.dense


def functional(number, by_name=False):
    inputs = [keras.Input((3,), name=name) for name in ("b", "a")][:number]
    h = inputs[0] if number == 1 else layers.Concatenate()(inputs)
    h = layers.Dense(3, activation="tanh", name="dense")(h)
    structure = {i.name: i for i in inputs} if by_name else inputs
    return gbr.GBRModel(structure, h)


MODELS = {
    "functional": lambda: functional(1),
    "functional, two": lambda: functional(2),
    "sequential": lambda: Sequential(
        [keras.Input((3,)), layers.Dense(3, activation="tanh", name="dense")]
    ),
    "subclassed": Net,
    "subclassed, two": Net,
}


def fitted(model, x):
    """The values of two penalties in a step of `fit`, and the loss of plain Keras."""
    penalties = [gbr.Jacobian(0.0, None), gbr.InputGradient(0.0)]
    model.compile(keras.optimizers.SGD(0.0), "mse", penalties=penalties)
    return model.fit(x, np.zeros((4, 3)), verbose=0, batch_size=4).history


def values_of(model, x):
    """The same from one forward pass, without training."""
    model.compile("sgd", "mse")
    model(x)
    forward = model.forward_pass(x, np.zeros((4, 3), "float32"))
    penalties = [gbr.Jacobian(0.0, None), gbr.InputGradient(0.0)]
    values = {p.name: [number(ops.mean(p(forward)))] for p in penalties}
    return values | {"loss": [number(ops.mean(forward.losses(forward.y_pred)))]}


def expected(model, parts):
    """The same in closed form, with the data as double precision."""
    kernel, bias = (w.astype("float64") for w in model.get_layer("dense").get_weights())
    z = np.tanh(np.concatenate([part.astype("float64") for part in parts], axis=-1) @ kernel + bias)
    jacobian = (1 - z**2)[:, :, None] * kernel.T
    gradient = np.einsum("bc,bci->bi", 2 * z / 3, jacobian)
    return {
        "jacobian": np.sum(jacobian**2, axis=(1, 2)).mean(),
        "input_gradient": np.sum(gradient**2, axis=1).mean(),
        "loss": np.mean(z**2),
    }


def assert_right(history, values):
    for name, value in values.items():
        assert history[name][0] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("kind", MODELS)
def test_every_type_counts_as_the_model_takes_it(kind, dtype):
    model, x = MODELS[kind](), data(dtype)
    parts = [x, NUMBERS] if kind.endswith("two") else [x]
    given = parts if len(parts) == 2 else x
    # A custom `call` does not declare its inputs, so integers do not count as numbers.
    if kind.startswith("subclassed") and dtype in INTEGERS:
        if len(parts) == 1 or dtype in ("uint8", "int8"):
            with pytest.raises(ValueError, match=r"(?s)ntegers.*astype\(.float32.\).*Received: "):
                values_of(model, given)
        return
    # Only two types get programs of their own: a trace takes a second.
    of = fitted if dtype in ("uint8", "float64") and len(parts) == 2 else values_of
    assert_right(of(model, given), expected(model, parts))


@pytest.mark.parametrize("by_name", [True, False])
def test_inputs_by_name_have_the_types_of_their_names(by_name):
    """The order of the names is not that of the inputs."""
    model, image = functional(2, by_name), data("uint8")
    history = fitted(model, {"a": NUMBERS, "b": image})
    # `Concatenate` gets the inputs in the order in which they were made.
    assert_right(history, expected(model, [image, NUMBERS]))


def test_measures_take_the_data_alike():
    model = functional(2)
    model.compile("sgd", "mse")
    parts = [data("uint8"), NUMBERS.astype("float64")]
    value = expected(model, parts)["jacobian"]
    assert gbr.measures.gbr(model, parts, verbose=0) == pytest.approx(value, rel=1e-4)
    report = gbr.measures.check_penalty(
        model, parts, np.zeros((4, 3)), penalty=gbr.InputGradient(1.0), verbose=0
    )
    assert report.ok(), str(report)


def test_numbers_for_an_input_of_indices_have_no_gradient():
    inputs = keras.Input((3,), dtype="int32")
    h = layers.Flatten()(layers.Embedding(4, 2)(inputs))
    model = gbr.GBRModel(inputs, layers.Dense(3)(h))
    with pytest.raises(ValueError, match=r"integers have no gradient.*Received: .*int32"):
        fitted(model, np.ones((4, 3), "float32"))


def sparse_model(sparse=True):
    inputs = keras.Input((3,), sparse=sparse)
    other = keras.Input((3,))
    h = layers.Add()([layers.Dense(3, activation="tanh", name="first")(inputs), other])
    return gbr.GBRModel([inputs, other], layers.Dense(3, name="dense")(h))


def sparse_batch():
    scipy = pytest.importorskip("scipy.sparse")
    return [scipy.csr_matrix(NUMBERS * (NUMBERS > 0)), NUMBERS]


def test_sparse_data_are_right_for_a_dense_input():
    model = sparse_model(sparse=False)
    sparse = fitted(model, sparse_batch())
    dense = fitted(model, [NUMBERS * (NUMBERS > 0), NUMBERS])
    assert sparse["jacobian"] == pytest.approx(dense["jacobian"])
    assert dense["jacobian"][0] > 0


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no sparse tensors under PyTorch.")
def test_a_sparse_input_is_refused_where_its_gradient_is_needed():
    with pytest.raises(ValueError, match=r"needs dense ones.*Received: .*sparse tensor"):
        fitted(sparse_model(), sparse_batch())
    model = sparse_model()
    model.compile("sgd", "mse", penalties=[gbr.Jacobian(0.0, None, at="first")])
    value = model.fit(sparse_batch(), NUMBERS, verbose=0).history["jacobian"][0]
    kernel = model.get_layer("dense").get_weights()[0]
    assert value == pytest.approx(np.sum(kernel.astype("float64") ** 2), rel=1e-2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Only TensorFlow has ragged tensors.")
def test_ragged_data_are_refused():
    import tensorflow as tf

    inputs = keras.Input((None, 3))
    model = gbr.GBRModel(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(inputs)))
    ragged = tf.RaggedTensor.from_row_lengths(np.ones((8, 3), "float32"), [2, 3, 1, 2])
    model.compile("sgd", "mse", penalties=[gbr.Jacobian(1.0)])
    with pytest.raises(ValueError, match=r"needs dense ones.*Received: .*ragged tensor"):
        model.fit(tf.data.Dataset.from_tensors((ragged, NUMBERS)), shuffle=False, verbose=0)
