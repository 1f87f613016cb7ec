"""GBRModel and GBRMixin: one step against NumPy, and everything around the step."""

import pickle

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import BACKEND, LOOPS, STEPS, tensorflow_only, to_numpy
from support.networks import (
    batch,
    cross_entropies,
    dense_network,
    jacobians,
    logits_loss,
    predictions,
    random_directions,
    slope,
    softmax,
    use_float64,
)
from support.tensorboard_files import tags

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def convolutional(cls=gbr.GBRModel, dropout=0.3):
    """Convolution, batch normalisation and dropout: everything that has a training mode."""
    inputs = keras.Input((6, 6, 1))
    x = layers.BatchNormalization()(gbr.ENCConv(layers.Conv2D(4, 3))(inputs))
    x = layers.Dropout(dropout, seed=1)(layers.ReLU()(x))
    outputs = layers.Dense(3, kernel_regularizer=gbr.Spectral(0.01))(layers.Flatten()(x))
    return cls(inputs, outputs)


def images(samples=24, seed=0):
    x, y = batch((6, 6, 1), samples, seed=seed)
    return x.astype("float32"), y


def all_penalties(weight=0.05):
    return [
        gbr.Jacobian(weight, seed=3),
        gbr.InputGradient(weight),
        gbr.InputGradient(weight, of="label_probability", name="label_gradient"),
        gbr.ParameterGradient(weight),
        gbr.Adversarial(weight, 0.1, fraction=0.5),
    ]


def total_by_numpy(model, x, y):
    """The loss with all three kinds of penalty, weights 0.3, 0.5 and 0.7, by differences."""
    losses = cross_entropies(predictions(model, x), y)
    jacobian = (jacobians(lambda x: predictions(model, x), x) ** 2).sum((1, 2))
    of_loss = jacobians(lambda x: cross_entropies(predictions(model, x), y), x) ** 2
    of_label = jacobians(lambda x: softmax(predictions(model, x))[np.arange(len(y)), y], x) ** 2
    return (losses + 0.3 * jacobian + 0.5 * of_loss.sum((1, 2)) + 0.7 * of_label.sum((1, 2))).mean()


@pytest.mark.parametrize("mode", STEPS)
def test_a_step_descends_the_gradient_of_the_penalised_loss(mode):
    use_float64()
    model = dense_network()
    x, y = batch((5,))
    before = model.get_weights()
    directions = random_directions(model.trainable_variables)
    # Differences of differences: 1e-5 squared against rounding leaves about six digits.
    numeric = slope(
        lambda: total_by_numpy(model, x, y), model.trainable_variables, directions, step=1e-4
    )
    penalties = [
        gbr.Jacobian(0.3, num_projections=None),
        gbr.InputGradient(0.5),
        gbr.InputGradient(0.7, of="label_probability", name="label"),
    ]
    model.compile(keras.optimizers.SGD(0.1), logits_loss(), penalties=penalties, **STEPS[mode])
    logs = model.train_on_batch(x, y, return_dict=True)
    steps = [(old - new) / 0.1 for old, new in zip(before, model.get_weights(), strict=True)]
    analytic = sum((s * d).sum() for s, d in zip(steps, directions, strict=True))
    np.testing.assert_allclose(analytic, numeric, rtol=1e-5)
    after = model.get_weights()
    model.set_weights(before)
    np.testing.assert_allclose(logs["loss"], total_by_numpy(model, x, y), rtol=1e-6)
    reference = (jacobians(lambda x: predictions(model, x), x) ** 2).sum((1, 2)).mean()
    np.testing.assert_allclose(logs["jacobian"], reference, rtol=1e-6)
    assert not np.allclose(before[0], after[0])


@pytest.mark.parametrize("penalties", [None, [], all_penalties(0.0)], ids=["none", "empty", "zero"])
def test_without_weight_training_is_that_of_keras(penalties):
    x, y = images()
    weights, histories = [], []
    for cls in (keras.Model, gbr.GBRModel):
        keras.utils.set_random_seed(5)
        model = convolutional(cls)
        extra = {} if cls is keras.Model else {"penalties": penalties}
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS, metrics=["accuracy"], **extra)
        history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
        weights.append(model.get_weights())
        histories.append(history)
    # In one program with the tracked penalties, XLA fuses the operations differently.
    rtol = 1e-5 if BACKEND == "jax" and penalties else 0
    for plain, penalised in zip(*weights, strict=True):
        np.testing.assert_allclose(penalised, plain, rtol=rtol, atol=rtol)
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=rtol)


def test_penalties_are_metrics_in_the_history_and_the_progress_bar(capsys):
    x, y = images()
    model = convolutional()
    model.compile("sgd", LOSS, metrics=["accuracy"], penalties=all_penalties())
    history = model.fit(x, y, validation_data=(x, y), verbose=2).history
    names = {penalty.name for penalty in model.penalties}
    assert set(history) == names | {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(history[name][0] > 0 for name in names)
    line = capsys.readouterr().out
    assert all(f"{name}: " in line for name in names)
    assert set(model.evaluate(x, y, return_dict=True, verbose=0)) == {"loss", "accuracy"}


@tensorflow_only
def test_penalties_are_in_tensorboard(tmp_path):
    x, y = images()
    model = convolutional()
    model.compile("sgd", LOSS, penalties=all_penalties())
    model.fit(x, y, verbose=0, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
    assert {f"epoch_{penalty.name}" for penalty in model.penalties} <= tags(tmp_path / "train")


def test_metrics_are_the_mean_over_the_epoch_of_unweighted_values():
    use_float64()
    x, y = batch((5,), samples=7)
    model = dense_network()
    model.compile(keras.optimizers.SGD(0.0), "mse", penalties=[gbr.Jacobian(2.0, None)])
    history = model.fit(x, np.eye(3)[y], batch_size=3, verbose=0).history
    reference = (jacobians(lambda x: predictions(model, x), x) ** 2).sum((1, 2)).mean()
    np.testing.assert_allclose(history["jacobian"], reference, rtol=1e-6)
    loss = ((predictions(model, x) - np.eye(3)[y]) ** 2).mean()
    np.testing.assert_allclose(history["loss"], loss + 2 * reference, rtol=1e-6)


def test_weight_follows_a_schedule():
    use_float64()
    x, y = batch((5,))
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.0, 0.5, 2.0])
    model = dense_network()
    model.compile(keras.optimizers.SGD(0.0), "mse", penalties=[gbr.Jacobian(schedule, None)])
    plain = ((predictions(model, x) - np.eye(3)[y]) ** 2).mean()
    for weight in (0.0, 0.5, 2.0, 2.0):
        model.reset_metrics()
        logs = model.train_on_batch(x, np.eye(3)[y], return_dict=True)
        np.testing.assert_allclose(logs["loss"], plain + weight * logs["jacobian"], rtol=1e-6)


class Net(gbr.GBRMixin, keras.Model):
    """A subclassed model, built only by its first step."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class Stack(gbr.GBRMixin, keras.Sequential):
    """A sequential model with the mixin."""


@pytest.mark.parametrize("make", [Net, lambda: Stack([layers.Dense(3)])], ids=["subclass", "stack"])
def test_mixin_in_a_subclass(make):
    x, y = batch((5,))
    model = make()
    model.compile(keras.optimizers.SGD(0.1), LOSS, penalties=[gbr.Jacobian(0.1, None)])
    history = model.fit(x, y, batch_size=4, verbose=0).history
    before = float(history["jacobian"][0])
    after = float((model.get_weights()[0] ** 2).sum())
    assert 0 < after < before, "the step shrinks the penalised norm of the linear model"


def test_a_sequential_model_becomes_a_gbr_model():
    x, y = images()
    stack = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(3)])
    model = gbr.GBRModel(stack.inputs, stack.outputs)
    model.compile("sgd", LOSS, penalties=all_penalties())
    model.fit(x, y, verbose=0)
    assert model(x[:2]).shape == (2, 3)
    np.testing.assert_array_equal(to_numpy(stack(x[:2])), to_numpy(model(x[:2])))


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_several_inputs_and_outputs(kind):
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b", dtype="int32")
    joined = layers.Concatenate()([a, layers.Flatten()(layers.Embedding(9, 2)(b))])
    kinds, sizes = layers.Dense(3, name="kind")(joined), layers.Dense(1, name="size")(joined)
    rng = np.random.default_rng(0)
    x = {"a": rng.standard_normal((8, 4)), "b": rng.integers(0, 9, (8, 2))}
    y = {"kind": rng.integers(0, 3, 8), "size": rng.standard_normal((8, 1))}
    inputs, outputs, loss = (
        {"a": a, "b": b},
        {"kind": kinds, "size": sizes},
        {"kind": LOSS, "size": "mse"},
    )
    if kind == "list":
        inputs, outputs, loss, x, y = (list(d.values()) for d in (inputs, outputs, loss, x, y))
    model = gbr.GBRModel(inputs, outputs)
    penalties = [gbr.Jacobian(0.1), gbr.InputGradient(0.1), gbr.ParameterGradient(0.1)]
    model.compile("sgd", loss, penalties=penalties)
    history = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert {"kind_loss", "size_loss", "jacobian"} <= set(history)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_agrees_with_single(policy):
    x, y = images(64)
    histories = []
    for name in ("float32", policy):
        keras.config.set_dtype_policy(name)
        keras.utils.set_random_seed(5)
        model = convolutional(dropout=0.0)
        lazy = gbr.InputGradient(0.05, norm=1, interval=2, name="lazy")
        model.compile("sgd", LOSS, penalties=[*all_penalties(), lazy])
        histories.append(model.fit(x, y, batch_size=64, verbose=0).history)
    single, half = histories
    # float16 has three digits, bfloat16 two and a half; a dozen operations lose some.
    for name in single:
        np.testing.assert_allclose(half[name], single[name], rtol=0.05, err_msg=name)


def test_steps_per_execution_and_partial_batches():
    x, y = images(10)
    model = convolutional()
    model.compile("sgd", LOSS, penalties=all_penalties(), **LOOPS.get("several", {}))
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert int(model.optimizer.iterations.value) == 6


def test_training_goes_on_after_loading_as_if_it_had_not_stopped(tmp_path):
    x, y = images()
    model = convolutional()
    schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 20, 0.1)
    penalties = [gbr.Jacobian(schedule, num_projections=2), *all_penalties()[1:]]
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), LOSS, metrics=["accuracy"], penalties=penalties
    )
    model.fit(x, y, batch_size=8, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, gbr.GBRModel)
    assert [p.get_config() for p in loaded.penalties] == [p.get_config() for p in model.penalties]
    # Keras saves no dropout seeds: give both the same, the rest must follow.
    for one in (model, loaded):
        dropout = next(layer for layer in one.layers if isinstance(layer, layers.Dropout))
        dropout.seed_generator.state.assign([7, 7])
    logs = [m.train_on_batch(x, y, return_dict=True) for m in (model, loaded)]
    assert logs[0]["jacobian"] == logs[1]["jacobian"]
    for straight, resumed in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(straight, resumed)


def test_weights_file_clone_and_pickle(tmp_path):
    x, y = images()
    model = convolutional()
    model.compile("sgd", LOSS, penalties=all_penalties())
    model.fit(x, y, verbose=0)
    expected = model.predict(x, verbose=0)
    model.save_weights(tmp_path / "w.weights.h5")
    clone = keras.models.clone_model(model)
    assert isinstance(clone, gbr.GBRModel)
    clone.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(clone.predict(x, verbose=0), expected)
    twin = pickle.loads(pickle.dumps(model))
    assert [p.name for p in twin.penalties] == [p.name for p in model.penalties]
    np.testing.assert_array_equal(twin.predict(x, verbose=0), expected)


def test_compiling_again_forgets_the_penalties():
    x, y = images()
    model = convolutional()
    model.compile("sgd", LOSS, penalties=all_penalties())
    model.fit(x, y, verbose=0)
    model.compile("sgd", LOSS)
    assert model.penalties == []
    assert set(model.fit(x, y, verbose=0).history) == {"loss"}


@pytest.mark.parametrize(
    ("penalties", "message"),
    [
        (gbr.Jacobian(0.1), "must be a list of penalties.*Received: penalties="),
        (["jacobian"], "must be a list of penalties"),
        ([gbr.Jacobian(0.1), gbr.Jacobian(0.2)], "name of its own.*'jacobian', 'jacobian'"),
    ],
)
def test_bad_penalties_are_refused_and_nothing_changes(penalties, message):
    model = convolutional()
    with pytest.raises(ValueError, match=message):
        model.compile("sgd", LOSS, penalties=penalties)
    assert not model.compiled


@pytest.mark.parametrize("penalty", [gbr.InputGradient(0.1), gbr.ParameterGradient(0.1)])
def test_a_penalty_on_the_loss_needs_a_loss(penalty):
    model = convolutional()
    with pytest.raises(ValueError, match=r"needs a `loss`.*Received: loss=None"):
        model.compile("sgd", penalties=[penalty])


@pytest.mark.parametrize(
    ("loss", "of", "labels", "errors", "message"),
    [
        (LOSS, "loss", np.zeros((24, 5)), ValueError, "shape"),
        (LOSS, "label_probability", np.zeros((24, 5)), ValueError, "shape"),
        # The loss of Keras, which the backends refuse in their own ways.
        ("mse", "label_probability", np.zeros((24, 2)), Exception, "shape|size of tensor"),
        (lambda y, p: keras.ops.mean(p), "loss", np.zeros(24), ValueError, "for the whole batch"),
    ],
)
def test_bad_labels_and_losses_are_refused_before_the_first_step(loss, of, labels, errors, message):
    x, _ = images()
    model = convolutional()
    model.compile("sgd", loss, penalties=[gbr.InputGradient(0.1, of=of)])
    # Not the moving averages: in an eager step, the forward pass has updated them by then.
    before = [to_numpy(variable) for variable in model.trainable_variables]
    with pytest.raises(errors, match=message):
        model.fit(x, labels, verbose=0)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, to_numpy(variable))


def test_a_model_without_inputs_is_refused_with_the_way_out():
    class Wrong(gbr.GBRModel):
        def __init__(self):
            super().__init__()

    with pytest.raises(ValueError, match=r"class Net\(keras_gbr.GBRMixin, keras.Model\)"):
        Wrong()
