"""train.py, as its user runs it."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from support.calls import BACKEND, assert_close, assert_equal
from support.scripts import FOLDER, ROOT, check_refused, load, run_process

yaml = pytest.importorskip("yaml")

SCRIPT = "train.py"
TINY = [
    "--epochs", "3", "--samples", "64", "--batch-size", "32", "--attacked", "40",
    "--pgd-steps", "2", "--quiet",
]  # fmt: skip
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


@pytest.mark.skipif(BACKEND != "torch", reason="One backend is enough; PyTorch starts quickly.")
def test_a_killed_run_goes_on(tmp_path, monkeypatch):
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
        # The tests have six logical devices, but a strategy finds them only as GPUs.
        devices = load("recipes.devices", monkeypatch).Devices("none")
        devices.count = 6
        with pytest.raises(ValueError, match="divisible by the 6 devices"):
            devices.check_batch(32)


def test_a_folder_is_that_of_one_run(train, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("epochs: 3\n")
    output = ["--output", str(tmp_path)]
    check_refused(train, [*TINY, *output], "has a run. Go on with --resume", capsys)
    message = "has a run with other settings. Give another --output. Received: another samples"
    check_refused(train, ["--samples", "7", "--resume", *output], message, capsys)
    (tmp_path / "config.yaml").write_text("epochs: [\n")
    check_refused(train, ["--resume", *output], "is not YAML", capsys)


def test_a_new_method_is_one_function(train, monkeypatch, tmp_path):
    methods = load("recipes.methods", monkeypatch)

    @methods.method
    def quiet_head(scale: float = 1.0):
        def change(model):
            return keras.Model(model.inputs, model.outputs[0] * scale)

        return methods.Parts(change)

    try:
        result = trained(train, tmp_path / "run", "--method", "quiet-head:scale=0.0")
    finally:
        del methods.METHODS["quiet-head"]
    assert result["gbr"] == 0
