"""Models with a step, metrics or a `compile` of their own, and models made wrongly."""

import inspect
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import BACKEND, to_numpy

pytestmark = pytest.mark.jax

X = np.random.default_rng(0).standard_normal((16, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
LOSS = "sparse_categorical_crossentropy"


class Net(gbr.GBRMixin, keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2, activation="softmax")

    def call(self, x):
        return self.dense(x)


class WithoutPenalties(Net):
    """A train step without the penalties that updates all metrics, as in Keras' guide."""

    def train_step(self, *args):
        if BACKEND == "jax":
            return {"loss": 0.0}, args[0]
        for metric in self.metrics:
            metric.update_state(np.ones(3), np.ones(3))
        return {metric.name: metric.result() for metric in self.metrics}


def test_a_step_that_computes_no_penalty_warns_once():
    model = WithoutPenalties()
    model.compile("sgd", LOSS, penalties=[gbr.InputGradient(1.0)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logs = model.fit(X, Y, verbose=0, epochs=2).history
    told = [str(each.message) for each in caught if "computes no penalty" in str(each.message)]
    assert len(told) == 1
    assert "self.penalized_loss(loss, forward)" in told[0]
    if BACKEND != "jax":
        assert logs["input_gradient"][-1] == 0.0


def test_a_class_that_leaves_out_the_metrics_is_refused():
    class Own(Net):
        def __init__(self):
            super().__init__()
            self.tracker = keras.metrics.Mean(name="own")

        @property
        def metrics(self):
            return [self.tracker]

    class Whole(Own):
        @property
        def metrics(self):
            return [self.tracker, *self.penalty_metrics]

    with pytest.raises(ValueError, match=r"return \[\.\.\., \*self\.penalty_metrics\]"):
        Own().compile("sgd", LOSS, penalties=[gbr.InputGradient(1.0)])
    Whole().compile("sgd", LOSS, penalties=[gbr.InputGradient(1.0)])


class Base(keras.Model):
    """A model with its own `compile`, as in Keras' guides."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2, activation="softmax")

    def call(self, x):
        return self.dense(x)

    def compile(self, optimizer, my_loss):
        super().compile(optimizer=optimizer, loss=my_loss)


class Mixed(gbr.GBRMixin, Base):
    pass


@pytest.mark.parametrize("penalties", [None, [gbr.InputGradient(1.0)]], ids=["none", "one"])
def test_a_compile_with_a_signature_of_its_own(penalties):
    model = Mixed()
    model.compile("sgd", LOSS, penalties=penalties)
    logs = model.fit(X, Y, verbose=0).history
    assert ("input_gradient" in logs) == bool(penalties)
    with pytest.raises(ValueError, match="needs a `loss`"):
        Mixed().compile("sgd", None, penalties=[gbr.InputGradient(1.0)])


def test_a_plain_number_gets_penalties():
    model = Net()
    model.compile("sgd", LOSS, penalties=[gbr.Jacobian(2.0, None)])
    forward = model.forward_pass(keras.ops.convert_to_tensor(X))
    total = model.penalized_loss(0.0, forward)
    value = keras.ops.mean(gbr.Jacobian(1.0, None)(forward))
    np.testing.assert_allclose(to_numpy(total), 2 * to_numpy(value), rtol=1e-6)


def test_errors_say_how_models_are_made():
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"GBRModel\(model.inputs, model.outputs\)"):
        gbr.GBRModel(plain)
    with pytest.raises(ValueError, match=r"keras.Sequential\(layers\)"):
        gbr.GBRModel([layers.Dense(2)])
    with pytest.raises(ValueError, match=r"class Late\(keras_gbr.GBRMixin, keras.Model\)"):

        class Late(keras.Model, gbr.GBRMixin):
            pass


def test_a_model_without_trainable_weights_trains_as_a_plain_one():
    model = gbr.GBRModel(*ends())
    model.trainable = False
    model.compile("sgd", LOSS, penalties=[gbr.InputGradient(1.0), gbr.ParameterGradient(1.0)])
    before = model.get_weights()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        logs = model.fit(X, Y, verbose=0).history
    assert logs["input_gradient"][0] > 0
    assert logs["parameter_gradient"] == [0.0]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def ends():
    inputs = keras.Input((4,))
    return inputs, layers.Dense(2, activation="softmax")(inputs)


TOKENS = np.random.default_rng(1).integers(0, 10, (16, 6))


def text_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    h = layers.Embedding(10, 3, name="embedding")(inputs)
    h = layers.Bidirectional(
        layers.LSTM(3, return_sequences=True, name="lstm"), name="bidirectional"
    )(h)
    h = layers.GlobalAveragePooling1D()(h)
    return gbr.GBRModel(inputs, layers.Dense(2, activation="softmax")(h))


def penalty_at(model, at, x):
    model.compile(keras.optimizers.SGD(0.0), LOSS, penalties=[gbr.InputGradient(1.0, at=at)])
    return model.fit(x, Y, batch_size=16, shuffle=False, verbose=0).history["input_gradient"][0]


def test_at_takes_a_layer_a_path_and_a_name():
    model = text_model()
    layer = model.get_layer("embedding")
    by_name = penalty_at(model, "embedding", TOKENS)
    assert by_name > 0
    np.testing.assert_allclose(penalty_at(model, layer, TOKENS), by_name, rtol=1e-5)
    assert model.penalties[0].get_config()["at"] == "embedding"
    assert penalty_at(model, "bidirectional/forward_lstm", TOKENS) > 0
    with pytest.raises(ValueError, match="The closest names are 'embedding'"):
        penalty_at(model, "embeding", TOKENS)
    model.compile("sgd", LOSS, penalties=[
        gbr.InputGradient(1.0, at=layer), gbr.Jacobian(1.0, None, at="embedding")])  # fmt: skip
    logs = model.fit(TOKENS, Y, verbose=0).history
    assert min(logs["input_gradient"][0], logs["jacobian"][0]) > 0


@pytest.mark.parametrize("change", [gbr.apply_enc, lambda m: gbr.apply_regularizer(m, "l2")])
def test_at_means_the_output_of_a_wrapper(change):
    assert penalty_at(gbr.GBRModel(*both(change(text_model()))), "embedding", TOKENS) > 0


def both(model):
    return model.inputs, model.outputs


def test_at_takes_one_of_several_inputs():
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    h = layers.Concatenate()([layers.Dense(3, activation="tanh")(first), second])
    model = gbr.GBRModel([first, second], layers.Dense(2, activation="softmax")(h))
    whole = penalty_at(model, None, [X, X])
    parts = [penalty_at(model, name, [X, X]) for name in ("first", "second")]
    assert min(parts) > 0
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5)
    named = penalty_at(model, "first", {"first": X, "second": X})
    np.testing.assert_allclose(named, parts[0], rtol=1e-6)


class Positions(layers.Layer):
    def build(self, shape):
        self.table = layers.Embedding(shape[1], shape[2], name="positions")
        self.table.build((None,))

    def call(self, x):
        return x + self.table(keras.ops.arange(x.shape[1])[None])


def test_a_layer_without_the_batch_along_its_first_axis_is_refused():
    inputs = keras.Input((6, 3))
    h = layers.Flatten()(Positions(name="block")(inputs))
    model = gbr.GBRModel(inputs, layers.Dense(2, activation="softmax")(h))
    x = np.random.default_rng(0).standard_normal((16, 6, 3)).astype("float32")
    before = model.get_weights()
    with pytest.raises(ValueError, match="samples of the batch along its first axis"):
        penalty_at(model, "positions", x)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert penalty_at(model, "block", x) > 0


def test_a_custom_penalty_takes_at():
    class Norm(gbr.Penalty):
        default_name = "norm"

        def __call__(self, forward):
            gradients = forward.input_gradients(lambda forward, y: y, self.at)
            return keras.ops.sum(keras.ops.square(gradients[0]), axis=(1, 2))

    model = text_model()
    model.compile(keras.optimizers.SGD(0.0), LOSS, penalties=[Norm(1.0, at="embedding")])
    assert model.fit(TOKENS, Y, verbose=0).history["norm"][0] >= 0


def keywords(function):
    """The parameters of a method with their defaults, `self` left out."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {each.name: each.default for each in parameters}


class Stack(gbr.GBRMixin, keras.Sequential):
    """A sequential model with the mixin."""


class Below(Mixed):
    """Inherits the signature that `Mixed` shows."""


def test_compile_and_fit_show_the_arguments_that_they_take():
    own = {"penalties": None, "check_numerics": False}
    for cls in (gbr.GBRModel, gbr.GBRMixin, Net, Stack):
        assert keywords(cls.compile) == keywords(keras.Model.compile) | own
    for cls in (gbr.GBRModel, Net):
        assert keywords(cls.fit) == keywords(keras.Model.fit)
    for cls in (Mixed, Below):
        assert keywords(cls.compile) == keywords(Base.compile) | own
    assert "check_numerics" in Mixed.compile.__doc__


class WithOthers(keras.Model):
    """A `compile` that passes unknown arguments on."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2, activation="softmax")

    def call(self, x):
        return self.dense(x)

    def compile(self, my_loss, **kwargs):
        super().compile(loss=my_loss, **kwargs)


class MixedWithOthers(gbr.GBRMixin, WithOthers):
    pass


def test_arguments_reach_the_compile_behind_by_name():
    assert list(keywords(MixedWithOthers.compile)) == [
        *("my_loss", "penalties", "check_numerics", "kwargs"),
    ]
    model = MixedWithOthers()
    model.compile(LOSS, optimizer="adam", check_numerics=True)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    model.fit(X, Y, verbose=0)
    with pytest.raises(TypeError, match="unexpected"):
        Mixed().compile("sgd", LOSS, metrics=["accuracy"])
    if BACKEND == "tensorflow":
        assert model.jit_compile is False
        with pytest.raises(ValueError, match="a `compile` that takes `jit_compile`"):
            Mixed().compile("sgd", LOSS, check_numerics=True)
