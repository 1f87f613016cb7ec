"""Every way that Keras runs: precisions, modes, data, weights, optimizers, callbacks."""

import csv
import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import LOOPS, STEPS, assert_close, to_numpy
from support.datasets import MAKERS
from support.networks import batch, logits_loss, use_float64

X, Y = batch((6,), samples=10)
X = X.astype("float32")
WEIGHTS = np.random.default_rng(1).uniform(0.2, 2.0, 10)
CLASS_WEIGHT = {0: 0.5, 1: 2.0, 2: 1.5}
BATCH = 4  # the last batch is a partial one


def network(cls=gbr.GBRModel):
    """Equal norm layers, and nothing that couples the samples."""
    inputs = keras.Input((6,))
    x = gbr.ENCDense(layers.Dense(5, "tanh"))(inputs)
    return cls(inputs, gbr.ENC(layers.Dense(3))(x))


def penalties(weight=0.1):
    return [gbr.Jacobian(weight, num_projections=None), gbr.InputGradient(weight)]


def compiled(cls=gbr.GBRModel, weight=0.1, optimizer=None, **settings):
    keras.utils.set_random_seed(5)
    model = network(cls)
    if cls is gbr.GBRModel:
        settings["penalties"] = penalties(weight)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, **(optimizer or {}))
    model.compile(optimizer, logits_loss(), metrics=["accuracy"], **settings)
    return model


class Batches(keras.utils.PyDataset):
    """The batches of the arrays, in order."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(BATCH * index, BATCH * (index + 1))
        return X[part], Y[part]


def generator():
    while True:
        yield from (Batches()[index] for index in range(3))


def dataset(kind, **settings):
    return {"x": MAKERS[kind](X, Y, size=BATCH, **settings)}


ARRAYS = {"x": X, "y": Y, "batch_size": BATCH}
DATA = {
    "arrays": lambda: ARRAYS,
    "generator": lambda: {"x": generator(), "steps_per_epoch": 3},
    "PyDataset": lambda: {"x": Batches()},
    **{kind: functools.partial(dataset, kind) for kind in MAKERS},
    **{
        f"{kind} of unknown length": functools.partial(dataset, kind, is_length_known=False)
        for kind in MAKERS
    },
    "sample_weight": lambda: {**ARRAYS, "sample_weight": WEIGHTS},
    "class_weight": lambda: {**ARRAYS, "class_weight": CLASS_WEIGHT},
}
OPTIMIZERS = {
    "clipnorm": {"clipnorm": 0.01},
    "clipvalue": {"clipvalue": 0.01},
    "global_clipnorm": {"global_clipnorm": 0.01},
    "accumulation": {"gradient_accumulation_steps": 2},
    "average": {"use_ema": True, "ema_overwrite_frequency": 2},
}
POLICIES = ["float64", "mixed_float16", "mixed_bfloat16"]


def fitted(model, data="arrays", epochs=2, **settings):
    """The weights after training, and the history."""
    arguments = {"epochs": epochs, "shuffle": False, "verbose": 0, **DATA[data](), **settings}
    with warnings.catch_warnings():
        # Keras warns so for every dataset whose length it cannot know.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        history = model.fit(**arguments).history
    return model.get_weights(), history


def set_precision(policy):
    keras.config.set_dtype_policy(policy)
    if policy == "float64":
        use_float64()


RUNS = [
    *[(mode, "arrays", {}, "float32") for mode in LOOPS if mode != "usual"],
    *[("usual", data, {}, "float32") for data in DATA if data != "arrays"],
    *[("usual", "arrays", optimizer, "float32") for optimizer in OPTIMIZERS.values()],
    *[("usual", "arrays", {}, policy) for policy in POLICIES],
]


@pytest.mark.parametrize(("mode", "data", "optimizer", "policy"), RUNS, ids=str)
def test_with_weight_zero_a_model_trains_as_a_plain_one(mode, data, optimizer, policy):
    """Bit for bit, except under TensorFlow's XLA, which fuses the operations differently."""
    set_precision(policy)
    runs = [
        fitted(compiled(cls, 0.0, optimizer, **LOOPS[mode]), data)
        for cls in (keras.Model, gbr.GBRModel)
    ]
    (plain, plain_history), (penalised, history) = runs
    rtol = 1e-5 if mode == "xla" else 0
    for expected, actual in zip(plain, penalised, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)
    for name, values in plain_history.items():
        np.testing.assert_allclose(history[name], values, rtol=rtol)


@keras.saving.register_keras_serializable("tests")
class WithLoss(layers.Layer):
    """A layer that adds a loss of its own."""

    def call(self, x):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(x)))
        return x


def with_all_that_layers_add(cls, **settings):
    """A compiled model with losses, random numbers and averages of its layers."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((6,))
    x = layers.Dense(5, kernel_regularizer="l2", activity_regularizer="l2")(inputs)
    x = layers.Dropout(0.5, seed=3)(layers.BatchNormalization()(x))
    x = layers.GaussianNoise(0.1, seed=4)(WithLoss()(x))
    model = cls(inputs, layers.Dense(3)(x))
    model.compile(keras.optimizers.SGD(0.1), logits_loss(), **settings)
    return model


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("mode", STEPS)
def test_what_layers_add_to_a_step_counts_once(mode, weight):
    """Even if penalties run the model a second time."""
    plain = with_all_that_layers_add(keras.Model, **STEPS[mode])
    penalties = [
        gbr.InputGradient(weight),
        gbr.InputGradient(weight, method="finite_difference", name="differences"),
        gbr.Jacobian(weight, num_projections=None, fraction=0.5),
    ]
    model = with_all_that_layers_add(gbr.GBRModel, penalties=penalties, **STEPS[mode])
    expected = plain.train_on_batch(X, Y, return_dict=True)["loss"]
    logs = model.train_on_batch(X, Y, return_dict=True)
    added = weight * sum(logs[penalty.name] for penalty in penalties)
    assert_close(logs["loss"], expected + added, rtol=1e-6)
    # Averages of batch normalisation and the states of the random numbers.
    pairs = [(model.non_trainable_variables, plain.non_trainable_variables)]
    if weight == 0:
        pairs.append((model.trainable_variables, plain.trainable_variables))
    for actual, wanted in pairs:
        for one, other in zip(actual, wanted, strict=True):
            assert_close(one, other, rtol=1e-6, atol=1e-7)


@functools.cache
def straight():
    """The weights and the history of the plainest run with penalties."""
    return fitted(compiled())


WAYS = [run[:2] for run in RUNS if run[2:] == ({}, "float32") and "weight" not in run[1]]


@pytest.mark.parametrize(("mode", "data"), WAYS, ids=str)
def test_with_penalties_a_step_does_not_depend_on_how_it_runs(mode, data):
    reference, expected = straight()
    weights, history = fitted(compiled(**LOOPS[mode]), data)
    for one, other in zip(reference, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)  # single precision
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)


def test_train_on_batch_is_a_step_of_fit():
    model = compiled()
    for index in [0, 1, 2, 0, 1, 2]:
        model.train_on_batch(*Batches()[index])
    for one, other in zip(model.get_weights(), straight()[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def gradient(**settings):
    """The gradient of one penalised step, from what plain descent subtracts, as one vector."""
    model = compiled()
    model.compile(keras.optimizers.SGD(1.0), logits_loss(), penalties=penalties(), **settings)
    before = [to_numpy(v) for v in model.trainable_variables]
    model.train_on_batch(X, Y)
    after = [to_numpy(v) for v in model.trainable_variables]
    return [old.astype("float64") - new for old, new in zip(before, after, strict=True)]


@pytest.mark.parametrize(("policy", "digits"), [("mixed_float16", 1e-3), ("mixed_bfloat16", 1e-2)])
def test_half_precision_steps_in_the_direction_of_single(policy, digits):
    """A loss that is scaled twice, or not unscaled, would be longer by 32768."""
    single = np.concatenate([g.ravel() for g in gradient()])
    keras.config.set_dtype_policy(policy)
    half = np.concatenate([g.ravel() for g in gradient()])
    cosine = single @ half / (np.linalg.norm(single) * np.linalg.norm(half))
    assert 1 - cosine < digits
    np.testing.assert_allclose(np.linalg.norm(half), np.linalg.norm(single), rtol=10 * digits)


def clipped(kind, gradients, limit=0.05):
    """The clipped gradients by NumPy."""
    if kind == "clipvalue":
        return [np.clip(g, -limit, limit) for g in gradients]
    norms = [np.linalg.norm(g) for g in gradients]
    if kind == "global_clipnorm":
        norms = [np.linalg.norm(norms)] * len(norms)
    return [g * min(1, limit / norm) for g, norm in zip(gradients, norms, strict=True)]


@pytest.mark.parametrize("kind", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_the_penalised_gradient_is_clipped(kind):
    full = gradient()
    model = compiled()
    model.compile(keras.optimizers.SGD(1.0, **{kind: 0.05}), logits_loss(), penalties=penalties())
    before = [to_numpy(v) for v in model.trainable_variables]
    model.train_on_batch(X, Y)
    expected = clipped(kind, full)
    assert any(not np.allclose(g, e) for g, e in zip(full, expected, strict=True))
    for old, variable, step in zip(before, model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(old - to_numpy(variable), step, rtol=1e-4, atol=1e-6)


def values_of(model, x, y, **weights):
    """The penalties of one batch."""
    model.reset_metrics()
    logs = model.train_on_batch(x, y, return_dict=True, **weights)
    return {name: float(logs[name]) for name in ("input_gradient", "parameter_gradient")}


LOSS_PENALTIES = [gbr.InputGradient(0.1), gbr.ParameterGradient(0.1)]


def still():
    """A model that a step does not change."""
    model = compiled()
    model.compile(keras.optimizers.SGD(0.0), logits_loss(), penalties=LOSS_PENALTIES)
    return model


def test_class_weights_are_weights_of_the_samples():
    model = still()
    by_class = values_of(model, X, Y, class_weight=CLASS_WEIGHT)
    by_sample = values_of(model, X, Y, sample_weight=np.array([CLASS_WEIGHT[y] for y in Y]))
    for name, value in by_class.items():
        np.testing.assert_allclose(value, by_sample[name], rtol=1e-6)


def test_weights_weight_the_mean_and_not_the_square():
    """Against each sample alone, and against the samples that have a weight."""
    model = still()
    alone = [values_of(model, X[i : i + 1], Y[i : i + 1])["input_gradient"] for i in range(3)]
    weighted = values_of(model, X[:3], Y[:3], sample_weight=WEIGHTS[:3])
    np.testing.assert_allclose(weighted["input_gradient"], (WEIGHTS[:3] * alone).mean(), rtol=1e-5)
    kept = (np.arange(10) < 5).astype("float32")
    some = values_of(model, X, Y, sample_weight=kept)
    others = values_of(model, X[:5], Y[:5])
    np.testing.assert_allclose(some["input_gradient"], others["input_gradient"] / 2, rtol=1e-5)
    # The gradient of half the mean loss.
    np.testing.assert_allclose(
        some["parameter_gradient"], others["parameter_gradient"] / 4, rtol=1e-5
    )


def sequence_model():
    keras.utils.set_random_seed(5)
    inputs = keras.Input((4, 2))
    model = gbr.GBRModel(
        inputs, layers.Dense(3)(layers.SimpleRNN(4, return_sequences=True)(inputs))
    )
    model.compile(keras.optimizers.SGD(0.0), logits_loss(), penalties=LOSS_PENALTIES)
    return model


def test_weights_of_time_steps_are_averaged_for_each_sample():
    x, _ = batch((4, 2), 3)
    y = np.random.default_rng(2).integers(0, 3, (3, 4))
    weights = np.random.default_rng(3).uniform(0.1, 2.0, (3, 4))
    by_step = values_of(sequence_model(), x, y, sample_weight=weights)
    by_sample = values_of(sequence_model(), x, y, sample_weight=weights.mean(1, keepdims=True))
    for name, value in by_step.items():
        np.testing.assert_allclose(value, by_sample[name], rtol=1e-6)


def test_early_stopping_follows_a_penalty():
    stop = keras.callbacks.EarlyStopping("jacobian", min_delta=1e9, patience=1, mode="min")
    assert len(fitted(compiled(), epochs=9, callbacks=[stop])[1]["jacobian"]) == 2


def test_checkpoints_load_with_their_penalties(tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = compiled()
    fitted(model, callbacks=[keras.callbacks.ModelCheckpoint(path)])
    loaded = keras.models.load_model(tmp_path / "2.keras")
    assert [p.get_config() for p in loaded.penalties] == [p.get_config() for p in model.penalties]
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


class Failure(keras.callbacks.Callback):
    """A machine that goes down in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_restored_run_ends_where_a_straight_one_does(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fitted(compiled(), callbacks=[backup, Failure()])
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    restored, history = fitted(compiled(), callbacks=[backup])
    assert len(history["loss"]) == 1
    for one, other in zip(straight()[0], restored, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_csv_log_has_the_penalties(tmp_path):
    path = tmp_path / "log.csv"
    _, history = fitted(compiled(), callbacks=[keras.callbacks.CSVLogger(path)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["jacobian"]) for row in rows] == history["jacobian"]
