"""train.py, as its user runs it."""

import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from support.calls import BACKEND, assert_close, assert_equal
from support.scripts import FOLDER, ROOT, check_refused, load, run_process

yaml = pytest.importorskip("yaml")
pytest.importorskip("art")  # It configures logging, which must not happen inside a test.

SCRIPT = "train.py"
TINY = [
    "--epochs", "3", "--samples", "64", "--batch-size", "32", "--attacked", "40",
    "--pgd-steps", "2", "--quiet",
]  # fmt: skip
once = pytest.mark.skipif(BACKEND != "torch", reason="One backend is enough; PyTorch is quick.")
MEASURES = [
    "train_accuracy", "test_accuracy", "gap", "test_loss", "gbr", "gbr_standard_error",
    "gbr_probabilities", "gbr_probabilities_standard_error", "fgsm_accuracy", "pgd_accuracy",
    "images_per_second", "compilation_seconds", "training_seconds", "peak_memory_bytes",
]  # fmt: skip


@pytest.fixture
def train(monkeypatch):
    """train.py, with a network that compiles in a second."""
    networks = load("recipes.networks", monkeypatch)
    parts = load("recipes.networks.parts", monkeypatch)

    def tiny(shape, classes, settings):
        inputs, x = parts.image_input(shape)
        x = parts.norm(parts.conv(x, 4, 3, 2, "conv"), "conv")
        return keras.Model(inputs, parts.classifier(x, classes, settings))

    monkeypatch.setitem(networks.NETWORKS, "tiny", tiny)
    return load(SCRIPT, monkeypatch)


def trained(train, folder, *arguments):
    train.main([*TINY, "--network", "tiny", "--output", str(folder), *arguments])
    return json.loads((folder / "result.json").read_text())


def weights(folder):
    return keras.models.load_model(folder / "model.keras", compile=False).get_weights()


def test_a_run_leaves_its_files(train, monkeypatch, tmp_path):
    methods = ["--method", "enc", "--penalty", "input-gradient:0.1,interval=2", "--monitor-gbr"]
    result = trained(train, tmp_path / "run", *methods)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.yaml", "log.csv", "checkpoint.npz", "model.keras", "result.json"}
    assert result["status"] == "finished"
    assert all(math.isfinite(result[name]) for name in MEASURES)
    assert result["fgsm_by"] == "adversarial-robustness-toolbox"
    assert result["config"] == yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert result["backend"] == BACKEND
    assert [entry["epoch"] for entry in result["history"]] == [1, 2, 3]
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [entry["loss"] for entry in result["history"]]
    assert {"gbr", "test_gbr", "test_accuracy", "input_gradient"} <= set(rows[0])

    # The saved network has plain layers, and the accuracy that the result tells.
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert not any(type(layer).__module__.startswith("keras_gbr") for layer in model.layers)
    data = load("recipes.datasets", monkeypatch).load("digits", 64)
    for split, name in ((data.train, "train"), (data.test, "test")):
        predicted = np.argmax(model.predict(split[0], verbose=0), axis=1)
        assert result[f"{name}_accuracy"] == pytest.approx(np.mean(predicted == split[1]), abs=1e-6)


def test_the_command_alone_makes_a_small_run(run, tmp_path):
    printed = run(SCRIPT, "--smoke", "--output", tmp_path / "run")
    assert "Epoch 2/2" in printed
    assert "accuracy on the test images" in printed
    assert printed.endswith(f"Files: {tmp_path / 'run'}\n")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    config = result["config"]
    assert (config["data"], config["network"], config["epochs"]) == ("digits", "resnet8", 2)
    assert set(result) == {
        "status", "message", "config", "parameters", "wall_seconds", "hardware", "backend",
        "versions", "history", "fgsm_epsilon", "fgsm_by", "pgd_epsilon", "pgd_steps", "attacked",
        "peak_memory_of", *MEASURES,
    }  # fmt: skip
    assert result["gap"] == result["train_accuracy"] - result["test_accuracy"]
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert result["parameters"] == sum(np.prod(w.shape) for w in model.trainable_weights)
    # What has a result is not trained again.
    before = (tmp_path / "run" / "model.keras").stat().st_mtime_ns
    again = run(SCRIPT, "--smoke", "--output", tmp_path / "run", "--resume")
    assert printed.endswith(again)
    assert (tmp_path / "run" / "model.keras").stat().st_mtime_ns == before


@pytest.mark.jax
def test_a_run_that_stopped_ends_as_one_that_did_not(train, monkeypatch, tmp_path):
    changes = ["--method", "cutout", "--method", "dropout", "--augment", "pad-crop"]
    trained(train, tmp_path / "whole", *changes)
    records = load("recipes.callbacks", monkeypatch).Records
    at_end = records.on_epoch_end

    def interrupted(self, epoch, logs=None):
        at_end(self, epoch, logs)
        if epoch == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(records, "on_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(train, tmp_path / "stopped", *changes)
    # The file of the other run has the same settings.
    file = tmp_path / "whole" / "config.yaml"
    stopped = ["--output", str(tmp_path / "stopped"), "--resume", "--quiet"]
    train.main(["--config", str(file), *stopped])
    for expected, actual in zip(
        weights(tmp_path / "whole"), weights(tmp_path / "stopped"), strict=True
    ):
        assert_equal(actual, expected)
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


@once
@pytest.mark.parametrize("last", ["save", "write_csv"])
def test_a_run_that_stopped_between_two_files_has_both_whole(train, monkeypatch, tmp_path, last):
    """Stopped in the last epoch, before the checkpoint or before the log is written."""
    trained(train, tmp_path / "whole")
    callbacks = load("recipes.callbacks", monkeypatch)
    owner = callbacks.checkpoint if last == "save" else callbacks
    write, calls = getattr(owner, last), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, last, interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(train, tmp_path / "stopped")
    result = trained(train, tmp_path / "stopped", "--resume")
    assert [entry["epoch"] for entry in result["history"]] == [1, 2, 3]
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


@once
def test_a_disk_that_is_full_at_the_end_is_one_line(train, monkeypatch, tmp_path, capsys):
    def full(model, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = [*TINY, "--network", "tiny", "--output", tmp_path]
    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "save", full)
        check_refused(train, arguments, f"No space left on device: '{tmp_path}/model.ker", capsys)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.yaml", "log.csv", "checkpoint.npz"}
    assert trained(train, tmp_path, "--resume")["status"] == "finished"


@once
def test_a_killed_run_goes_on(train, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, FOLDER / SCRIPT, *TINY, "--epochs", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    output = tmp_path / "run"
    process = subprocess.Popen(
        [*command, "--output", output], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        limit = time.monotonic() + 120
        while not (output / "checkpoint.npz").exists() and time.monotonic() < limit:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (output / "result.json").exists()
    resumed = run_process(SCRIPT, "--output", output, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads((output / "result.json").read_text())
    assert [entry["epoch"] for entry in result["history"]] == list(range(1, 9))
    train.main([*TINY, "--epochs", "8", "--output", str(tmp_path / "whole")])
    for expected, actual in zip(weights(tmp_path / "whole"), weights(output), strict=True):
        assert_equal(actual, expected)


def test_a_run_that_diverges_says_so(train, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        trained(train, tmp_path / "run", "--learning-rate", "1e30")
    assert stop.value.code == 3
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "the loss was not finite in epoch 1" in printed
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["message"]) == (
        "diverged",
        "the loss was not finite in epoch 1",
    )


def test_without_the_toolbox_fgsm_is_the_same(train, monkeypatch, tmp_path):
    evaluation = load("recipes.evaluation", monkeypatch)
    with_toolbox = trained(train, tmp_path / "toolbox")
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    without = trained(train, tmp_path / "own")
    assert without["fgsm_by"] == "one step written here"
    assert without["pgd_accuracy"] is None
    assert_close(without["fgsm_accuracy"], with_toolbox["fgsm_accuracy"], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "no_such_set"], "no_such_set"),
        (["--data", "none.npz"], "Cannot read none.npz"),
        (["--network", "resnet9"], "network must be one of resnet8, "),
        (["--method", "encc"], "method must be one of plain, enc, "),
        (["--method", "enc", "--set", "alpha=-1"], "alpha"),
        (["--set", "alpha=1"], "must stand behind the --method"),
        (["--penalty", "jacobian"], "penalty jacobian: "),
        (["--batch-size", "500"], "batch_size must be at most the 64 training images"),
        (["--epochs", "0"], "epochs must be a whole number >= 1. Received: 0"),
        (["--precision", "float8"], "invalid choice: 'float8'"),
        (["--resume"], "needs --output"),
    ],
)
def test_bad_arguments_stop_before_training(monkeypatch, tmp_path, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    check_refused(load(SCRIPT, monkeypatch), [*TINY, *arguments], message, capsys)
    assert not list(tmp_path.iterdir())


def test_devices_that_do_not_fit_are_refused(train, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    if BACKEND != "tensorflow":
        message = "distribution mirrored needs KERAS_BACKEND=tensorflow"
        check_refused(train, [*TINY, "--distribution", "mirrored"], message, capsys)
    if BACKEND != "jax":
        message = "distribution data-parallel needs KERAS_BACKEND=jax"
        check_refused(train, [*TINY, "--distribution", "data-parallel"], message, capsys)
    if BACKEND == "tensorflow":
        monkeypatch.delenv("TF_CONFIG", raising=False)
        check_refused(train, [*TINY, "--distribution", "multi-worker"], "TF_CONFIG", capsys)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="A strategy of TensorFlow.")
def test_replicas_share_a_batch(train, monkeypatch, tmp_path, capsys):
    """On logical CPU devices, of which a strategy without arguments would take one."""
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy
    mirrored = ["--distribution", "mirrored", "--epochs", "2"]
    for count in (6, 2):
        devices = [f"CPU:{index}" for index in range(count)]
        monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda d=devices: strategy(d))
        if count == 6:
            message = "batch_size must be divisible by the 6 devices, so that each gets as many"
            check_refused(train, [*TINY, *mirrored, "--output", str(tmp_path)], message, capsys)
    result = trained(train, tmp_path / "two", *mirrored)
    one = trained(train, tmp_path / "one", "--epochs", "2")
    assert [entry["epoch"] for entry in result["history"]] == [1, 2]
    assert_close(result["history"][0]["loss"], one["history"][0]["loss"], rtol=0.05)


def test_a_folder_is_that_of_one_run(train, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("epochs: 3\n")
    output = ["--output", str(tmp_path)]
    check_refused(train, [*TINY, *output], "has a run. Go on with --resume", capsys)
    message = "has a run with other settings. Give another --output. Received: another samples"
    check_refused(train, ["--samples", "7", "--resume", *output], message, capsys)
    (tmp_path / "config.yaml").write_text("epochs: [\n")
    check_refused(train, ["--resume", *output], "is not YAML", capsys)


def test_a_new_method_and_a_new_network_are_one_function_each(train, monkeypatch, tmp_path):
    methods = load("recipes.methods", monkeypatch)
    networks = load("recipes.networks", monkeypatch)

    @methods.method
    def quiet_head(scale: float = 1.0):
        def change(model):
            return keras.Model(model.inputs, model.outputs[0] * scale)

        return methods.Parts(change)

    @networks.network
    def one_layer(shape, classes, settings):
        inputs = keras.Input(shape)
        flat = keras.layers.Flatten()(inputs)
        return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(flat))

    try:
        new = ["--network", "one_layer", "--method", "quiet-head:scale=0.0"]
        result = trained(train, tmp_path / "run", *new)
    finally:
        del methods.METHODS["quiet-head"], networks.NETWORKS["one_layer"]
    assert result["gbr"] == 0
    assert result["parameters"] == 8 * 8 * 10 + 10
