"""GBRMonitor: what it writes into the logs, against direct calls of the measures."""

import csv

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import BACKEND, number, tensorflow_only
from support.datasets import MAKERS
from support.networks import batch, conv_network, dense_network, logits_loss
from support.tensorboard_files import tags


def compiled(cls=gbr.GBRModel, **arguments):
    model = dense_network(cls=cls)
    model.compile("sgd", logits_loss(), **arguments)
    return model


def data(samples=16, seed=0):
    x, y = batch((5,), samples=samples, seed=seed)
    return x.astype("float32"), y


def last(history):
    """The logs of the last epoch: those of the model as training left it."""
    return {name: values[-1] for name, values in history.history.items()}


def test_monitor_writes_into_history_and_files(tmp_path, capsys):
    inputs = keras.Input((5,))
    hidden = gbr.ENCDense(layers.Dense(6, name="inner"), alpha=2.0, name="enc")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(hidden))
    x, y = data()
    model.compile("sgd", "mse")
    callbacks = [
        gbr.GBRMonitor(x, validation_data=x[:4]),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    history = model.fit(x, np.eye(3)[y], epochs=2, verbose=2, callbacks=callbacks).history
    assert history["gbr"][-1] == pytest.approx(gbr.measures.gbr(model, x), rel=1e-6)
    assert history["val_gbr"][-1] == pytest.approx(gbr.measures.gbr(model, x[:4]), rel=1e-6)
    assert history["gbr"][0] != history["gbr"][1]
    assert history["kernel_norm/enc"] == pytest.approx([2**0.5] * 2, rel=1e-6)
    head = np.linalg.norm(model.get_layer("head").get_weights()[0])
    assert history["kernel_norm/head"][-1] == pytest.approx(head, rel=1e-6)
    assert set(history) == {"loss", "gbr", "val_gbr", "kernel_norm/enc", "kernel_norm/head"}
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["gbr"]) == pytest.approx(history["gbr"][1])
    assert float(rows[1]["val_gbr"]) == pytest.approx(history["val_gbr"][1])
    assert "gbr: " in capsys.readouterr().out


@tensorflow_only
def test_monitor_writes_for_tensorboard(tmp_path):
    model = compiled()
    x, y = data()
    callbacks = [gbr.GBRMonitor(x, validation_data=x[:4]), keras.callbacks.TensorBoard(tmp_path)]
    model.fit(x, y, verbose=0, callbacks=callbacks)
    assert {"epoch_gbr", f"epoch_kernel_norm/{model.layers[1].name}"} <= tags(tmp_path / "train")
    assert "epoch_gbr" in tags(tmp_path / "validation")


def test_all_measures_against_direct_calls():
    model = compiled(penalties=[gbr.InputGradient(0.1), gbr.Jacobian(0.1, seed=1)])
    (x, y), (x_val, y_val) = data(), data(12, seed=1)
    monitor = gbr.GBRMonitor(
        x,
        y,
        validation_data=(x_val, y_val),
        measures=("gbr", "kernel_norms", "weight_bound", "gradient_transfer", "check_penalty"),
        of="probabilities",
        num_projections=3,
        standard_error=True,
        batch_size=8,
    )
    logs = last(model.fit(x, y, verbose=0, callbacks=[monitor]))
    measures = gbr.measures
    for prefix, inputs, labels in (("", x, y), ("val_", x_val, y_val)):
        value, error = measures.gbr(model, inputs, "probabilities", 3, 8, standard_error=True)
        assert logs[prefix + "gbr"] == pytest.approx(value, rel=1e-6)
        assert logs[prefix + "gbr_error"] == pytest.approx(error, rel=1e-6)
        sides = measures.gradient_transfer(model, inputs, labels)
        for side in ("left", "right"):
            expected = getattr(sides, side).mean()
            assert logs[f"{prefix}gradient_transfer/{side}"] == pytest.approx(expected, rel=1e-5)
        report = measures.check_penalty(model, inputs[:8], labels[:8])
        assert report.ok()
        for name in ("input_gradient", "jacobian"):
            assert logs[f"{prefix}check_penalty/{name}"] == 0
    bound = measures.weight_bound(model)
    assert logs["weight_bound/product"] == pytest.approx(bound.product, rel=1e-6)
    assert logs["weight_bound/mean_power"] == pytest.approx(bound.mean_power, rel=1e-6)
    norms = measures.kernel_norms(model)
    for name, norm in norms.items():
        assert logs[f"kernel_norm/{name}"] == pytest.approx(norm, rel=1e-6)
    # Measures that depend only on the weights are not repeated on validation data.
    assert not any(name.startswith(("val_kernel", "val_weight")) for name in logs)


class Quarter(gbr.InputGradient):
    """A penalty whose gradient is a quarter of the slope of its value."""

    def __call__(self, forward):
        value = super().__call__(forward)
        return (value + 3 * keras.ops.stop_gradient(value)) / 4


def test_a_wrong_gradient_shows_in_the_logs():
    model = compiled(penalties=[Quarter(1.0)])
    monitor = gbr.GBRMonitor(*data(), measures=["check_penalty"], batch_size=4)
    monitor.set_model(model)
    logs = {}
    monitor.on_epoch_end(0, logs)
    assert logs["check_penalty/input_gradient"] == pytest.approx(0.75, abs=0.01)


def accuracy(model, x, y):
    return np.mean(np.argmax(model.predict(x, verbose=0), axis=1) == y)


def extremes(model, x, y):
    assert y is not None
    z = model.predict_on_batch(x)
    return {"lowest": z.min(), "highest": keras.ops.convert_to_tensor(z.max())}


def test_functions_as_measures():
    model = compiled(keras.Model)
    (x, y), validation = data(), data(12, seed=1)
    monitor = gbr.GBRMonitor(x, y, validation_data=validation, measures=[accuracy, extremes])
    logs = last(model.fit(x, y, verbose=0, callbacks=[monitor]))
    assert logs["accuracy"] == accuracy(model, x, y)
    assert logs["val_accuracy"] == accuracy(model, *validation)
    assert logs["val_highest"] == pytest.approx(number(extremes(model, *validation)["highest"]))
    assert set(logs) == {"loss"} | {
        prefix + name for prefix in ("", "val_") for name in ("accuracy", "lowest", "highest")
    }


@pytest.mark.parametrize("kind", MAKERS)
def test_datasets_bring_their_labels(kind):
    model = compiled(penalties=[gbr.InputGradient(0.1)])
    x, y = data()
    dataset = MAKERS[kind](x, y, size=6)
    names = ["gbr", "gradient_transfer", "check_penalty"]
    monitors = [
        gbr.GBRMonitor(dataset, measures=names, validation_data=dataset),
        gbr.GBRMonitor(x, y, measures=names, validation_data=(x, y, np.ones(16)), batch_size=6),
    ]
    logs = []
    for monitor in monitors:
        monitor.set_model(model)
        logs.append({})
        monitor.on_epoch_end(0, logs[-1])
    assert logs[0] == logs[1]
    assert len(logs[0]) == 8


def test_every_few_epochs():
    model = compiled(keras.Model)
    x, y = data()
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append("gbr" in logs)
    )
    callbacks = [gbr.GBRMonitor(x, measures=["gbr"], freq=2), watch]
    model.fit(x, y, epochs=5, verbose=0, callbacks=callbacks)
    assert seen == [True, False, True, False, True]


def test_other_callbacks_can_watch_it():
    model = compiled(keras.Model)
    x, y = data()
    stop = keras.callbacks.EarlyStopping("val_gbr", mode="min", min_delta=1e6)
    monitor = gbr.GBRMonitor(x, validation_data=x, measures=["gbr"])
    history = model.fit(x, y, epochs=5, verbose=0, callbacks=[monitor, stop]).history
    assert len(history["loss"]) == 2


@pytest.mark.parametrize("measure", ["weight_bound", "gradient_transfer"])
def test_a_model_that_does_not_fit_a_measure_is_refused_before_training(measure):
    model = conv_network(groups=None, normalization=layers.BatchNormalization)
    model.compile("sgd", logits_loss())
    x, y = batch((6, 6, 2))
    before = model.get_weights()
    monitor = gbr.GBRMonitor(x, y, measures=[measure])
    with pytest.raises(ValueError, match=r"layer 'enc_conv.*' breaks it"):
        model.fit(x, y, verbose=0, callbacks=[monitor])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_that_training_builds_is_measured():
    model = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(3)])
    model.compile("sgd", logits_loss())
    x, y = data()
    monitor = gbr.GBRMonitor(x, measures=["gbr", "weight_bound"])
    logs = last(model.fit(x, y, verbose=0, callbacks=[monitor]))
    assert 0 < logs["gbr"] <= logs["weight_bound/product"] <= logs["weight_bound/mean_power"]


def text_network():
    inputs = keras.Input((5,), dtype="int32")
    h = layers.Flatten()(layers.Embedding(7, 3, name="embedding")(inputs))
    model = gbr.GBRModel(inputs, layers.Dense(3)(h))
    model.compile("sgd", logits_loss(), penalties=[gbr.InputGradient(0.1, at="embedding")])
    return model


TOKENS = np.random.default_rng(2).integers(0, 7, (16, 5))


def test_a_model_of_tokens_is_watched_at_its_embedding():
    model = text_network()
    monitor = gbr.GBRMonitor(TOKENS, measures=["gbr"], at="embedding")
    logs = last(model.fit(TOKENS, data()[1], verbose=0, callbacks=[monitor]))
    kernel = model.layers[-1].get_weights()[0]
    # After the embedding the model is linear.
    assert logs["gbr"] == pytest.approx(np.sum(kernel.astype("float64") ** 2), rel=1e-5)


WRONG_DATA = {
    "width": (lambda x, y: (x[:, :4],), ["gbr"], "incompatible"),
    "validation": (lambda x, y: (x, y, x[:, :4]), ["gbr"], "incompatible"),
    "no labels for a check": (lambda x, y: (x,), ["check_penalty"], "needs labels"),
    "no labels for a transfer": (lambda x, y: (x,), ["gradient_transfer"], "Give labels"),
}


@pytest.mark.parametrize("kind", [*WRONG_DATA, "tokens"])
def test_data_that_do_not_fit_a_measure_are_refused_before_training(kind):
    (x, y), model = data(), compiled(penalties=[gbr.InputGradient(0.1)])
    if kind == "tokens":
        x, model = TOKENS, text_network()
        arguments, measures, message = (TOKENS,), ["gbr"], "integers have no gradient"
    else:
        make, measures, message = WRONG_DATA[kind]
        arguments = make(x, y)
    before = model.get_weights()
    monitor = gbr.GBRMonitor(*arguments, measures=measures)
    with pytest.raises(ValueError, match=f"(?s)GBRMonitor must.*{message}.*Received: "):
        model.fit(x, y, verbose=0, callbacks=[monitor])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_trying_the_measures_changes_nothing():
    logs = []
    (x, y), names = data(), ["gbr", "kernel_norms"]
    if BACKEND != "torch":  # whose dropout draws from the generator that also shuffles the data
        names.append("check_penalty")
    for callbacks in ([], [gbr.GBRMonitor(x, y, measures=names, freq=1000)]):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((5,))
        h = layers.Dropout(0.5)(layers.BatchNormalization()(layers.Dense(4)(inputs)))
        model = gbr.GBRModel(inputs, layers.Dense(3)(h))
        model.compile("sgd", logits_loss(), penalties=[gbr.Jacobian(0.1, seed=1)])
        model.fit(x, y, batch_size=8, verbose=0, callbacks=callbacks)
        logs.append(model.get_weights())
    for plain, watched in zip(*logs, strict=True):
        np.testing.assert_array_equal(plain, watched)


@tensorflow_only
def test_texts_beside_numbers():
    text, number = keras.Input((1,), dtype="string", name="t"), keras.Input((5,), name="n")
    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    h = layers.Concatenate()([lookup(text), number])
    model = gbr.GBRModel({"t": text, "n": number}, layers.Dense(3)(h))
    model.compile("sgd", logits_loss())
    x, y = data()
    words = np.array([["a"], ["b"]] * 8)
    inputs = {"t": keras.ops.convert_to_tensor(words), "n": keras.ops.convert_to_tensor(x)}
    monitor = gbr.GBRMonitor(inputs, validation_data={"t": words, "n": x}, measures=["gbr"])
    logs = last(model.fit(inputs, y, verbose=0, callbacks=[monitor]))
    kernel = model.layers[-1].get_weights()[0][3:].astype("float64")
    assert logs["gbr"] == logs["val_gbr"] == pytest.approx(np.sum(kernel**2), rel=1e-5)


X = np.zeros((4, 5))


@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (None, {}, "`x` must be an array"),
        (X, {"y": np.zeros(3)}, "`y` must have one entry"),
        (X, {"validation_data": (X, np.zeros(3))}, "`y` must have one entry"),
        (X, {"validation_data": "data"}, "`x` must be an array"),
        (X, {"validation_data": (X, X, X, X)}, "`validation_data` must be"),
        (X, {"measures": "gbr"}, "`measures` must be a list"),
        (X, {"measures": ["fgsm"]}, "`measures` must be a list"),
        (X, {"measures": []}, "`measures` must be a list"),
        (X, {"of": "logits"}, "`of` must be one of"),
        (X, {"num_projections": 0}, "`num_projections`"),
        (X, {"standard_error": "yes"}, "`standard_error` must be True or False"),
        (X, {"batch_size": 0}, "`batch_size`"),
        (X, {"freq": 0}, "`freq`"),
        (X, {"verbose": 3}, "`verbose`"),
    ],
)
def test_bad_arguments(x, arguments, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: "):
        gbr.GBRMonitor(x, **arguments)
