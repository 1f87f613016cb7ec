"""Several workers end as one does, even if one of them is killed."""

import functools
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_gbr  # noqa: F401, its classes are in the saved models
from support import scripts

NAME = "multi_worker.py"
run = functools.partial(scripts.run_process, NAME, timeout=900)


def weights(folder):
    return keras.models.load_model(folder / "model.keras").get_weights()


def test_two_workers_end_as_one_and_a_killed_run_as_an_undisturbed_one(tmp_path):
    done = run("--smoke", "--kill-worker", "--output", tmp_path / "two")
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("Workers differ by at most", "Killing worker 1", "died with exit status -9"):
        assert line in done.stdout
    alone = run("--smoke", "--workers", 1, "--output", tmp_path / "one")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    folders = [tmp_path / "two" / run for run in ("undisturbed", "killed")]
    expected = weights(tmp_path / "one" / "undisturbed" / "worker-0")
    for folder in [worker for run in folders for worker in sorted(run.glob("worker-?"))]:
        for one, other in zip(expected, weights(folder), strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6)
    # The killed run resumed in its third epoch instead of starting anew, and left no backup.
    log = (folders[1] / "worker-1.log").read_text()
    assert (log.count("Epoch 1/4"), log.count("Epoch 3/4")) == (1, 2)
    assert not list(tmp_path.rglob("backup"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", 0], "--workers must be positive; received 0"),
        (["--workers", 3], "--workers must divide the batch of 64; received 3"),
        (["--epochs", -1], "--epochs must be positive"),
        (["--timeout", 0], "--timeout must be positive"),
        (["--kill-worker", "--epochs", 1], "--kill-worker needs at least two --epochs"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_training_that_does_not_end_is_stopped(tmp_path):
    done = run("--smoke", "--timeout", 1, "--output", tmp_path)
    assert done.returncode == 1
    assert "error: no end after 1 seconds (--timeout)" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_launcher(tmp_path, how):
    # A shell that runs the tests in the background lets its children ignore SIGINT.
    launcher = subprocess.Popen(
        [sys.executable, scripts.FOLDER / NAME, "--output", tmp_path],
        stderr=subprocess.PIPE,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    log = tmp_path / "undisturbed" / "worker-1.log"
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    launcher.send_signal(how)
    launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in listed.stdout
