"""check_penalty: right gradients pass, wrong ones are found by layer, the model stays."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from keras_gbr.maths.gradient_norms import squared_norms
from keras_gbr.measures.penalty_check.differences import sharpest
from keras_gbr.measures.penalty_check.finite_differences import Slopes
from keras_gbr.measures.penalty_check.plain_model import INPUTS, LOSS, OUTPUTS, PARAMETERS
from keras_gbr.penalties.forward_pass import ForwardPass
from support import catalogue
from support.calls import BACKEND, tensorflow_only
from support.datasets import MAKERS
from support.networks import (
    batch,
    cross_entropies,
    dense_network,
    jacobians,
    logits_loss,
    predictions,
    use_float64,
    values,
)

# What the backend can differentiate twice.
RESIZING = ["nearest"] if BACKEND == "tensorflow" else ["nearest", "bilinear"]
PENALTIES = [
    *(row.smooth(None) for row in catalogue.PENALTIES.values()),
    gbr.Jacobian(1.0, seed=3, name="projected"),
    gbr.InputGradient(1.0, of="label_probability", name="label"),
    gbr.InputGradient(1.0, norm=1, target=0.5, of="label_probability", name="one-norm"),
    gbr.InputGradient(1.0, method="finite_difference", step=0.1, name="differences"),
    gbr.InputGradient(1.0, at="first", fraction=0.5, interval=3, name="inner"),
]


def network(between=None, cls=gbr.GBRModel):
    """A smooth convolutional network with something in the middle."""
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(3, 2, activation="tanh", name="first")(inputs)
    x = between(x) if between else x
    x = layers.Conv2D(3, 2, activation="tanh", name="second")(x)
    return cls(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


def normalized(x):
    return layers.Dropout(0.3, seed=1)(layers.BatchNormalization(name="norm")(x))


def checked(model, samples=4, seed=0, **arguments):
    x, y = batch(model.input_shape[1:], samples, seed=seed)
    if not model.compiled:
        model.compile("sgd", logits_loss())
    return gbr.measures.check_penalty(model, x, y, verbose=0, **arguments)


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: penalty.name)
def test_right_gradients_agree_in_double_precision(penalty):
    use_float64()
    report = checked(network(normalized), penalty=penalty)
    assert report.ok(1e-7), str(report)
    assert [row.layer for row in report.rows] == ["first", "norm", "second", "head"]
    # The rows do not agree because of large noise.
    assert max(row.noise for row in report.rows) < 1e-7
    # The parts of the value agree with the plain model.
    at = getattr(penalty, "at", None)
    where = INPUTS if at is None else f"(gradient at {at})"
    expected = {PARAMETERS if penalty.needs_parameters else where}
    expected |= {LOSS} if penalty.needs_loss else set()
    expected |= {OUTPUTS} if penalty.name in ("adversarial", "differences") else set()
    assert {row.layer for row in report.parts} == expected
    assert max(row.noise for row in report.parts) < 1e-7


def test_right_gradients_agree_in_single_precision():
    report = checked(network(normalized), samples=16, penalty=PENALTIES)
    assert report.ok(), str(report)
    assert {row.penalty for row in report.rows} == {penalty.name for penalty in PENALTIES}
    assert max(row.noise for row in report.rows) < 0.02


@pytest.mark.parametrize(("activation", "double"), [("relu", True), ("softplus", False)])
def test_right_gradients_of_other_models_agree(activation, double):
    """Wrappers, nested models, layers inside layers, shared weights, jumps of the penalty."""
    if double:
        use_float64()
    inputs = keras.Input((4, 3))
    h = gbr.ENC(layers.LSTM(3, return_sequences=True), learnable_alpha=True, name="enc")(inputs)
    h = layers.MultiHeadAttention(1, 2, name="attention")(h, h)
    h = keras.Sequential([layers.Dense(4, activation), layers.LayerNormalization()], name="part")(h)
    shared = layers.Dense(4, "tanh", name="shared")
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(shared(shared(h)))))
    model.compile(loss=logits_loss())
    report = checked(model, penalty=gbr.InputGradient(1.0))
    assert report.ok(), str(report)
    paths = {row.layer for row in report.rows}
    assert {"enc", "attention/query", "shared"} <= paths
    assert sum(path.startswith("enc/lstm") for path in paths) == 1
    assert sum(path.startswith("part/") for path in paths) == 2


@tensorflow_only
@pytest.mark.parametrize("double", [True, False])
def test_the_lost_path_of_bilinear_resizing_is_found(double):
    """TensorFlow has no second derivative for it, and raises no error."""
    if double:
        use_float64()
    model = network(layers.UpSampling2D(interpolation="bilinear", name="resize"))
    report = checked(model, penalty=[gbr.InputGradient(1.0), gbr.Jacobian(1.0)])
    assert not report.ok()
    off = {(row.penalty, row.layer) for row in report.off()}
    assert {("input_gradient", name) for name in ("first", "second", "head")} <= off
    # After the resize the whole gradient is lost.
    lost = [row for row in report.rows if row.layer == "head"]
    assert all(row.analytic == 0 and row.numeric != 0 for row in lost)
    assert all(row.error > 0.9 for row in lost)
    assert report.max_error == max(row.error for row in report.rows)
    assert any("ResizeBilinear of layer 'resize'" in reason for reason in report.reasons)
    table = str(report).splitlines()
    assert table[0].split() == ["penalty", "layer", "analytic", "numeric", "noise", "error"]
    assert [line.split()[-1] for line in table[1:4]] == ["off"] * 3
    assert "ResizeBilinear" in table[-1]


@pytest.mark.parametrize("interpolation", RESIZING)
def test_resizing_with_second_derivatives_is_fine(interpolation):
    resize = layers.UpSampling2D(interpolation=interpolation)
    report = checked(network(resize), penalty=gbr.InputGradient(1.0))
    assert report.ok(), str(report)
    assert report.reasons == ()


class Halved(gbr.Penalty):
    """A penalty whose gradient is half the slope of its value."""

    def __call__(self, forward):
        value = squared_norms(forward.input_gradients(lambda forward, z: ops.sum(ops.square(z))))
        return (value + ops.stop_gradient(value)) / 2


def test_a_wrong_factor_is_found_everywhere():
    use_float64()
    report = checked(network(), penalty=Halved(1.0))
    assert len(report.off()) == len(report.rows) == 3
    for row in report.rows:
        assert row.numeric == pytest.approx(2 * row.analytic, rel=1e-6)
        assert row.error == pytest.approx(0.5, rel=1e-6)


class HeldMean(Halved):
    """The same, with its constant returned by `constants`."""

    def constants(self, forward):
        return ops.stop_gradient(super().__call__(forward))

    def __call__(self, forward, constants=None):
        constants = self.constants(forward) if constants is None else constants
        value = squared_norms(forward.input_gradients(lambda forward, z: ops.sum(ops.square(z))))
        return (value + constants) / 2


def test_what_a_penalty_holds_constant_is_held_constant():
    use_float64()
    report = checked(network(normalized), penalty=HeldMean(1.0))
    assert report.ok(1e-7), str(report)


def zeros(self, of, at=None):
    return [ops.zeros_like(point) for point in self.points(at)]


def test_a_value_that_is_zero_by_mistake_is_found(monkeypatch):
    """Its slopes agree, because all are zero: only the plain model shows the error."""
    monkeypatch.setattr(ForwardPass, "input_gradients", zeros)
    report = checked(dense_network(), penalty=gbr.InputGradient(1.0), num_directions=1)
    assert [(row.layer, row.error) for row in report.off()] == [(INPUTS, 1.0)]
    assert all(row.analytic == row.numeric == 0 for row in report.rows)
    assert not report.ok()
    assert report.max_error == 1.0
    assert "input_gradient: its value is not that of the plain model" in str(report)


def test_values_of_a_classifier_with_probabilities_are_judged_by_the_plain_model():
    """The loss may use the logits behind the outputs: the report agrees with differences."""
    use_float64()
    model = dense_network(activation="softmax")
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = batch((5,))
    penalties = [gbr.InputGradient(1.0), gbr.ParameterGradient(1.0), gbr.Adversarial(1.0, 0.5)]
    report = gbr.measures.check_penalty(model, x, y, penalty=penalties, verbose=0)
    gradients = jacobians(lambda x: cross_entropies(np.log(predictions(model, x)), y)[:, None], x)
    value = values(model, penalties[0], x, y, "sparse_categorical_crossentropy").mean()
    is_right = np.isclose(value, np.sum(gradients**2, axis=(1, 2)).mean(), rtol=1e-6)
    off = {(row.penalty, row.layer) for row in report.off()}
    assert report.ok() == is_right
    assert (
        is_right
        or {
            ("input_gradient", INPUTS),
            ("parameter_gradient", PARAMETERS),
            ("adversarial", INPUTS),
        }
        <= off
    )


def test_a_stopped_path_is_found_in_the_layers_before_it():
    use_float64()
    cut = layers.Lambda(lambda x: x + ops.stop_gradient(ops.square(x)))
    report = checked(network(cut), penalty=gbr.Jacobian(1.0, None))
    # And the model itself has another gradient than its differences.
    assert [row.layer for row in report.off()] == ["first", INPUTS]


def test_the_model_is_left_bit_for_bit_as_it_was(monkeypatch):
    inputs = keras.Input((3, 3), batch_size=4)
    h = layers.BatchNormalization()(layers.SimpleRNN(3, stateful=True)(inputs))
    h = layers.Dropout(0.5, seed=1)(h)
    head = layers.Dense(3, activity_regularizer="l2", kernel_constraint="unit_norm")
    model = gbr.GBRModel(inputs, head(h))
    penalties = [gbr.Jacobian(1.0)]
    model.compile("adam", logits_loss(), metrics=["accuracy"], penalties=penalties)
    x, y = batch((3, 3))
    model.fit(x, y, verbose=0)
    model(x.astype("float32"), training=True)
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [ops.convert_to_numpy(variable).tobytes() for variable in variables]
    (noted,), trained = model.losses, model.train_function
    gbr.measures.check_penalty(model, x, y, num_directions=1, verbose=0)

    def spoil(*_):
        model.set_weights([weight + 1 for weight in model.get_weights()])
        raise ZeroDivisionError

    monkeypatch.setattr(Slopes, "compared", spoil)
    with pytest.raises(ZeroDivisionError):
        gbr.measures.check_penalty(model, x, y, verbose=0)
    assert [ops.convert_to_numpy(variable).tobytes() for variable in variables] == before
    assert model.losses[0] is noted
    assert model.train_function is trained


def test_the_penalties_of_a_compiled_model_and_sample_weights_count():
    use_float64()
    model = dense_network()
    model.compile("sgd", logits_loss(), penalties=[gbr.InputGradient(0.0), gbr.Jacobian(2.0)])
    weights = np.array([0.0, 0.0, 0.0, 1.0])
    report = checked(model, sample_weight=weights)
    assert [row.penalty for row in report.rows] == ["input_gradient"] * 2 + ["jacobian"] * 2
    assert report.ok(1e-7), str(report)
    x, y = batch((5,))
    repeated = [np.repeat(part[3:], 4, axis=0) for part in (x, y)]
    alone = gbr.measures.check_penalty(model, *repeated, verbose=0)
    for weighted, single in zip(report.rows[:2], alone.rows[:2], strict=True):
        # One of four samples counts, compared with four copies of it.
        assert weighted.numeric == pytest.approx(single.numeric / 4, rel=1e-6)


def test_eager_models_are_checked():
    model = network()
    model.compile("sgd", logits_loss(), run_eagerly=True)
    report = checked(model, penalty=gbr.InputGradient(1.0), num_directions=1)
    assert report.ok(), str(report)


def test_a_layer_may_be_frozen_or_of_zeros():
    use_float64()
    model = network()
    model.get_layer("first").trainable = False
    head = model.get_layer("head")
    head.set_weights([0 * weight for weight in head.get_weights()])
    report = checked(model, penalty=gbr.Jacobian(1.0, None))
    assert [row.layer for row in report.rows] == ["second", "head"]
    # At zero the value has a minimum: the slope is 0, and so is its gradient.
    assert all(row.analytic == 0 for row in report.rows)
    assert report.ok(), str(report)


def staircase(analytic, rounding=1e-12):
    """Slopes of 2 t with a step up at each thousandth: longer differences see 3 everywhere."""
    rng = np.random.default_rng(0)

    def value(t):
        return 2 * t + 1e-3 * np.floor(t * 1e3 + 0.4) + rounding * rng.standard_normal()

    return lambda step: ((value(step) - value(-step)) / (2 * step), analytic)


@pytest.mark.parametrize("rounding", [1e-12, 1e-7])
def test_jumps_of_a_network_of_relus_are_no_error(rounding):
    right = sharpest(staircase(2.0, rounding), 0.05, rounding, 1.0)
    assert right.error == 0
    wrong = sharpest(staircase(1.0, rounding), 0.05, rounding, 1.0)
    assert wrong.error == pytest.approx(0.5, rel=0.02)


def test_a_network_of_relus_in_single_precision():
    """Without the care for jumps, one of these errors would be 0.7."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1))
    h = layers.Conv2D(8, 3, activation="relu")(inputs)
    h = layers.Flatten()(layers.Conv2D(16, 3, activation="relu")(h))
    model = keras.Model(inputs, layers.Dense(4)(h))
    for weight in model.trainable_weights:
        weight.assign(weight * 3)
    penalties = [gbr.InputGradient(1.0), Halved(1.0)]
    report = checked(model, samples=32, seed=1, penalty=penalties, num_directions=1)
    assert {row.penalty for row in report.off()} == {"penalty"}, str(report)
    assert any(row.error == pytest.approx(0.5, rel=0.02) for row in report.off())


@tensorflow_only
def test_a_missing_second_derivative_that_tensorflow_notices_is_named():
    with pytest.raises(ValueError, match=r"'input_gradient' has no gradient.*SoftsignGrad"):
        checked(network(layers.Activation("softsign")), penalty=gbr.InputGradient(1.0))


def unbuilt():
    model = keras.Sequential([layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def half():
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(2, dtype="mixed_bfloat16", name="half")(inputs))


def frozen():
    model = dense_network()
    model.trainable = False
    return model


PENALTY = gbr.Jacobian(1.0)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (dense_network, {}, "`penalty` must be a penalty or a list"),
        (lambda: dense_network(cls=keras.Model), {}, "`penalty` must be a penalty or a list"),
        (dense_network, {"penalty": "jacobian"}, "`penalty` must be a penalty or a list"),
        (dense_network, {"penalty": gbr.InputGradient(1.0)}, "compile the model with a `loss`"),
        (dense_network, {"penalty": PENALTY, "num_directions": 0}, "`num_directions` must be"),
        (dense_network, {"penalty": PENALTY, "step": 0.0}, "`step` must be"),
        (dense_network, {"penalty": PENALTY, "seed": -1}, "`seed` must be"),
        (dense_network, {"penalty": PENALTY, "verbose": 2}, "`verbose` must be"),
        (dense_network, {"penalty": PENALTY, "y": np.zeros(3)}, "`y` must have one entry"),
        (dense_network, {"penalty": PENALTY, "x": None}, "`x` must be an array"),
        (dense_network, {"penalty": PENALTY, "x": PENALTY}, "`x` must be an array"),
        (unbuilt, {"penalty": PENALTY}, "`model` must be a built"),
        (half, {"penalty": PENALTY}, "half precision"),
        (frozen, {"penalty": PENALTY}, "trainable weights"),
    ],
)
def test_bad_arguments(make, arguments, message):
    arguments = {"x": np.zeros((4, 5)), **arguments}
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: "):
        gbr.measures.check_penalty(make(), **arguments)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_dataset_is_not_a_batch(kind):
    dataset = MAKERS[kind](np.zeros((4, 5)), size=2)
    with pytest.raises(ValueError, match="must be the arrays of one batch"):
        gbr.measures.check_penalty(dense_network(), dataset, penalty=PENALTY)
