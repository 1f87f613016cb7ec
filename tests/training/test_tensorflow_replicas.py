"""Training on several replicas: as one replica on the same batches, or refused."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_gbr as gbr
from keras_gbr.penalties.jacobian import jacobian_squared_norms

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Two strategies of one process must not share devices, nor both reduce by collectives.
DEVICES = {2: ["CPU:4", "CPU:5"], 4: ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]}


@functools.cache
def strategy(replicas):
    if replicas == 1:
        return tf.distribute.get_strategy()
    if replicas == "one of its own":
        return tf.distribute.MirroredStrategy(
            ["CPU:3"], cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
    options = {"cross_device_ops": tf.distribute.ReductionToOneDevice()} if replicas == 4 else {}
    return tf.distribute.MirroredStrategy(DEVICES[replicas], **options)


def images(samples=32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, 6, 6, 2)).astype("float32")
    return x, rng.integers(0, 3, samples), rng.uniform(0.5, 2, samples).astype("float32")


def network(synchronized=True):
    """ENC, weight norm, synchronised statistics, and losses of layers before and behind them."""
    inputs = keras.Input((6, 6, 2))
    convolution = layers.Conv2D(
        4, 3, activity_regularizer="l2", kernel_regularizer=gbr.ShiftedL2(0.01), name="conv2d"
    )
    x = gbr.ENC(convolution, learnable_alpha=True)(inputs)
    x = layers.BatchNormalization(synchronized=synchronized)(x)
    x = layers.Activation("tanh", activity_regularizer=keras.regularizers.L2(0.1))(x)
    head = layers.Dense(3, kernel_constraint=gbr.EqualNorm(2.0), activity_regularizer="l1")
    x = gbr.WeightNorm(layers.Dense(8, kernel_regularizer=gbr.Spectral(0.01)))(layers.Flatten()(x))
    return gbr.GBRModel(inputs, head(x))


def compiled(replicas, penalties=(), optimizer=None, loss=LOSS, **kwargs):
    keras.utils.set_random_seed(1)
    with strategy(replicas).scope():
        # One replica has no others to synchronise with.
        model = network(synchronized=replicas > 1)
        optimizer = optimizer() if optimizer else keras.optimizers.SGD(0.1, momentum=0.9)
        # Strategies cannot use XLA, so one replica must not.
        kwargs.setdefault("jit_compile", False)
        model.compile(optimizer, loss, metrics=["accuracy"], penalties=list(penalties), **kwargs)
    return model


PENALTIES = {
    "none": [],
    "input gradient": [gbr.InputGradient(0.1)],
    "label gradient": [gbr.InputGradient(0.1, of="label_probability")],
    "jacobian": [gbr.Jacobian(0.1, num_projections=None)],
    "parameter gradient": [gbr.ParameterGradient(0.1)],
    "several norms": [
        gbr.InputGradient(0.001, norm=1, at="conv2d"),
        gbr.InputGradient(0.01, target=1.0, method="finite_difference", name="difference"),
        gbr.Adversarial(0.1, 0.1),
    ],
    "every other step": [
        gbr.InputGradient(0.1, interval=2),
        gbr.ParameterGradient(0.1, interval=2),
    ],
    "all": [
        gbr.InputGradient(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)),
        gbr.ParameterGradient(0.1),
    ],
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda: keras.optimizers.Adam(0.01, use_ema=True),
}


@functools.cache
def trained(replicas, penalties, optimizer):
    """Weights and history after two epochs; for `all` also evaluations and predictions."""
    model = compiled(replicas, PENALTIES[penalties], OPTIMIZERS[optimizer])
    x, y, weights = images()
    fit = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    if penalties != "all":
        history = model.fit(x, y, sample_weight=weights, **fit).history
        return model.get_weights(), history, {}, []
    history = model.fit(x, y, sample_weight=weights, validation_data=(x, y), **fit).history
    logs = model.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)
    return model.get_weights(), history, logs, model.predict(x, batch_size=8, verbose=0)


CASES = [(2, penalties, "sgd") for penalties in PENALTIES]
CASES += [
    (2, "all", "adam"),
    (4, "all", "sgd"),
]


@pytest.mark.parametrize(("replicas", "penalties", "optimizer"), CASES)
def test_replicas_train_as_one_on_the_same_batches(replicas, penalties, optimizer):
    one = trained(1, penalties, optimizer)
    several = trained(replicas, penalties, optimizer)
    # Adam divides by the roots of squared gradients, which amplifies rounding.
    tolerance = 1e-6 if optimizer == "sgd" else 1e-5
    for expected, actual in zip(one[0], several[0], strict=True):
        np.testing.assert_allclose(actual, expected, atol=tolerance)
    for expected, actual in zip(one[1:3], several[1:3], strict=True):
        assert actual.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5)
    np.testing.assert_allclose(several[3], one[3], atol=10 * tolerance)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": keras.losses.SparseCategoricalCrossentropy(True, reduction="sum")},
        {"optimizer": lambda: keras.optimizers.AdamW(0.01, loss_scale_factor=8.0)},
    ],
    ids=["sum", "scaled"],
)
def test_settings_that_replicas_keep(settings):
    x, y, _ = images(16)
    weights = []
    for replicas in (1, 2):
        model = compiled(replicas, [gbr.InputGradient(0.1)], **settings)
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for expected, actual in zip(*weights, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("samples", [7, 5])
def test_batches_that_do_not_divide_run(samples):
    """The last batch has samples for some of the replicas, or for only one."""
    x, y, _ = images(samples)
    with strategy(2).scope():
        inputs = keras.Input((6, 6, 2))
        hidden = layers.Dense(4, activation="tanh")(layers.Flatten()(inputs))
        model = gbr.GBRModel(inputs, layers.Dense(3)(hidden))
        penalties = [gbr.InputGradient(0.1), gbr.ParameterGradient(0.1)]
        model.compile("sgd", LOSS, penalties=penalties)
    history = model.fit(x, y, batch_size=4, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert model.predict(x, batch_size=4, verbose=0).shape == (samples, 3)


def test_metrics_are_those_of_all_replicas():
    """The area under the curve of the whole is not the mean of those of the parts."""
    x, y, _ = images()
    areas = []
    for replicas in (1, 2):
        keras.utils.set_random_seed(1)
        with strategy(replicas).scope():
            inputs = keras.Input((6, 6, 2))
            outputs = layers.Dense(1, activation="sigmoid")(layers.Flatten()(inputs))
            model = gbr.GBRModel(inputs, outputs)
            auc = keras.metrics.AUC(name="auc")
            penalties = [gbr.Jacobian(0.1)]
            model.compile("sgd", "binary_crossentropy", metrics=[auc], penalties=penalties)
        history = model.fit(x, y > 0, batch_size=8, shuffle=False, verbose=0).history
        logs = model.evaluate(x, y > 0, batch_size=8, verbose=0, return_dict=True)
        areas.append([history["auc"][0], logs["auc"]])
    np.testing.assert_allclose(areas[1], areas[0], atol=1e-6)


def test_replicas_draw_projections_of_their_own():
    inputs = keras.Input((1,))
    model = gbr.GBRModel(inputs, keras.layers.Dense(2)(inputs))
    model.set_weights([np.array([[1.0, 0.0]]), np.zeros(2)])
    x = tf.zeros((4000, 1))

    def draw():
        return jacobian_squared_norms(model.forward_pass(x), num_projections=1, seed=3)

    drawn = strategy(2).experimental_local_results(strategy(2).run(tf.function(draw)))
    # Each is twice the squared cosine of an angle: mean 1, variance 1/2.
    one, other = (values.numpy() - 1 for values in drawn)
    np.testing.assert_allclose(one + 1, draw(), atol=1e-5)
    # Independent, by four standard errors.
    assert abs(np.mean(one * other)) < 4 * 0.5 / np.sqrt(4000)
    for values in (one, other):
        assert abs(np.mean(values)) < 4 * np.sqrt(0.5 / 4000)
        assert abs(np.mean(values**2) - 0.5) < 4 * np.sqrt(0.125 / 4000)


def test_projections_estimate_the_same_penalty_on_replicas():
    x, y, _ = images(64)
    values = {}
    for replicas, projections in [(1, None), (2, 1)]:
        penalties = [gbr.Jacobian(0.0, num_projections=projections, seed=1)]
        model = compiled(replicas, penalties, lambda: keras.optimizers.SGD(0.0))
        history = model.fit(x, y, batch_size=64, epochs=30, shuffle=False, verbose=0).history
        values[replicas] = np.array(history["jacobian"][1:])
    # 29 means of 64 estimates with a relative variance below 2.
    error = np.sqrt(2 / (29 * 64))
    assert abs(values[2].mean() / values[1].mean() - 1) < 4 * error
    assert values[2].std() > 0


def test_two_epochs_and_two_more_are_four(tmp_path):
    x, y, _ = images()
    fit = {"batch_size": 8, "shuffle": False, "verbose": 0}
    penalties = [gbr.Jacobian(0.1, seed=2), gbr.ParameterGradient(0.1)]
    straight = compiled(2, penalties)
    straight.fit(x, y, epochs=4, **fit)
    first = compiled(2, penalties)
    first.fit(x, y, epochs=2, **fit)
    first.save(tmp_path / "model.keras")
    with strategy(2).scope():
        resumed = keras.models.load_model(tmp_path / "model.keras")
    resumed.fit(x, y, epochs=2, **fit)
    for expected, actual in zip(straight.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    # It loads on one replica too, where synchronised statistics have no other replica.
    alone = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(alone.predict(x, verbose=0), first.predict(x, verbose=0), atol=1e-6)


class Block(layers.Layer):
    """Kernels in both kinds of attribute, on both sides of statistics that replicas share."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(3, 3, padding="same")
        self.statistics = layers.BatchNormalization(synchronized=True)
        self.second = layers.DepthwiseConv2D(3, padding="same")

    def build(self, shape):
        self.first.build(shape)
        self.statistics.build((*shape[:-1], 3))
        self.second.build((*shape[:-1], 3))

    def call(self, x, training=None):
        return self.second(keras.ops.tanh(self.statistics(self.first(x), training=training)))


WRAPPED = {
    "ENC": gbr.ENC,
    "WeightNorm": gbr.WeightNorm,
    "Regularized": lambda layer: gbr.Regularized(layer, gbr.ShiftedL2(0.1)),
}


@functools.cache
def trained_block(replicas, wrapper, interval):
    """The weights after two steps, and the outputs of the model."""
    keras.utils.set_random_seed(1)
    with strategy(replicas).scope():
        inputs = keras.Input((4, 4, 3))
        block = WRAPPED[wrapper](Block())
        x = layers.Flatten()(block(block(inputs)))
        model = gbr.GBRModel(inputs, layers.Dense(3)(x))
        penalties = [gbr.InputGradient(0.1, interval=interval)]
        model.compile(keras.optimizers.SGD(0.1), LOSS, penalties=penalties)
    x = images(16)[0][:, :4, :4, :1] * np.ones(3, "float32")
    y = images(16)[1]
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.evaluate(x, y, verbose=0)
    return [*model.get_weights(), model.predict(x, verbose=0)]


# Kinds of steps are those of one model, whatever wraps its layers.
BLOCKS = [*((2, wrapper, 1) for wrapper in WRAPPED), (2, "ENC", 2), ("one of its own", "ENC", 2)]


@pytest.mark.parametrize(("replicas", "wrapper", "interval"), BLOCKS)
def test_a_wrapped_block_where_replicas_meet_trains_as_on_one(replicas, wrapper, interval):
    expected = trained_block(1, wrapper, interval)
    for one, other in zip(expected, trained_block(replicas, wrapper, interval), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)


def batch_loss(y_true, y_pred):
    return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y_true, y_pred, True))


REFUSED = {
    "clipnorm": {"optimizer": lambda: keras.optimizers.SGD(0.1, clipnorm=1.0)},
    "global_clipnorm": {"optimizer": lambda: keras.optimizers.SGD(0.1, global_clipnorm=1.0)},
    "clipvalue": {"optimizer": lambda: keras.optimizers.SGD(0.1, clipvalue=1.0)},
    "gradient_accumulation_steps": {
        "optimizer": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    },
    "ema_overwrite_frequency": {
        "optimizer": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=2)
    },
    "optimizer": {
        "optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    },
    "steps_per_execution": {"steps_per_execution": 2},
    "jit_compile": {"jit_compile": True},
    "run_eagerly": {"run_eagerly": True},
    "check_numerics": {"check_numerics": True},
}


# A model without penalties reaches the same checks: one case is enough.
@pytest.mark.parametrize(
    ("name", "penalties"), [("clipnorm", "none"), *((name, "input gradient") for name in REFUSED)]
)
def test_what_trains_wrongly_on_replicas_is_refused_before_the_first_step(name, penalties):
    model = compiled(2, PENALTIES[penalties], **REFUSED[name])
    before = model.get_weights()
    x, y, _ = images()
    with pytest.raises(ValueError, match=rf"On several replicas .*Received: {name}="):
        model.fit(x, y, batch_size=8, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    alone = compiled(1, PENALTIES[penalties], **REFUSED[name])
    alone.fit(x, y, batch_size=8, verbose=0)


def test_a_loss_of_the_whole_batch_is_refused_on_replicas():
    x, y, _ = images()
    for replicas in (1, 2):
        model = compiled(replicas)
        with strategy(replicas).scope():
            model.compile("sgd", batch_loss)
        if replicas == 1:
            model.fit(x, y, verbose=0)
            continue
        with pytest.raises(ValueError, match=r"several replicas, need the loss of every sample"):
            model.fit(x, y, verbose=0)


def test_variables_from_outside_the_scope_are_refused():
    x, y, _ = images()
    outside = network(synchronized=False)
    with strategy(2).scope():
        model = gbr.GBRModel(outside.inputs, outside.outputs)
        model.compile("sgd", LOSS)
        with pytest.raises(ValueError, match=r"strategy.scope\(\):`.*Received"):
            model.fit(x, y, verbose=0)
        with pytest.raises(ValueError, match=r"strategy.scope\(\):`.*Received"):
            model.predict(x, verbose=0)


def test_strategies_that_keras_does_not_support_are_refused():
    with tf.distribute.experimental.CentralStorageStrategy(["CPU:0"]).scope():
        model = network(synchronized=False)
        model.compile("sgd", LOSS)
        with pytest.raises(ValueError, match=r"MirroredStrategy.*Received: strategy='Central"):
            model.fit(*images()[:2], verbose=0)


def test_a_second_derivative_that_is_missing_is_refused_on_replicas():
    with strategy(2).scope():
        inputs = keras.Input((4, 4, 1))
        x = layers.UpSampling2D(2, interpolation="bilinear", name="enlarge")(inputs)
        x = layers.Conv2D(2, 3, activation="tanh")(x)
        model = gbr.GBRModel(inputs, layers.Dense(2)(layers.Flatten()(x)))
        model.compile("sgd", "mse", penalties=[gbr.Jacobian(0.1)])
    with pytest.raises(ValueError, match="enlarge"):
        model.fit(np.ones((8, 4, 4, 1)), np.ones((8, 2)), batch_size=4, verbose=0)
