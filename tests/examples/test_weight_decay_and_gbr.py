"""The example on weight decay runs, writes what it measured, and decays as it says."""

import csv

import keras
import matplotlib.image
import numpy as np
import pytest

from support.oracles import central_differences
from support.scripts import FOLDER, check_refused, load

SCRIPT = "weight_decay_and_gbr.py"
RUNS = ["1e-2", "0", "ENC"]
METRICS = {"loss", "accuracy", "val_loss", "val_accuracy", "gbr"}


def test_it_writes_a_tidy_file_and_a_figure(tmp_path, run):
    folder = tmp_path / "new" / "folder"
    printed = run(SCRIPT, "--smoke", "--decays", *RUNS[:-1], RUNS[0], "--output", folder)
    assert "[3/3] ENC seed 0" in printed
    names = ["weight_decay_and_gbr.csv", "weight_decay_and_gbr.png"]
    assert sorted(path.name for path in folder.iterdir()) == names

    with open(folder / names[0], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["seed"], row["epoch"]) for row in rows] == [
        (label, "0", epoch) for label in RUNS for epoch in "12"
    ]
    for row in rows:
        values = {metric: float(row[metric]) for metric in METRICS}
        assert np.isfinite(list(values.values())).all()
        assert values["gbr"] > 0
    # The table has the last epoch of each run.
    for row in rows[1::2]:
        assert f"| {row['run']:12} | {float(row['gbr']):.3g} " in printed

    height, width, _ = matplotlib.image.imread(folder / names[1]).shape
    assert width > 1000
    assert height > 300


@pytest.mark.parametrize("label", ["0", "1e-2"])
def test_the_gradient_of_a_decay_is_the_decay_times_the_kernel(label, monkeypatch):
    regularizer = load(SCRIPT, monkeypatch).parts(label, "1e-4")["regularizer"]
    kernel = np.random.default_rng(0).standard_normal((3, 2, 4))
    gradient = central_differences(
        lambda w: float(regularizer(keras.ops.convert_to_tensor(w, "float64"))), kernel
    )
    np.testing.assert_allclose(gradient, float(label) * kernel, atol=1e-9)


def test_enc_goes_with_the_shifted_decay_of_the_option(monkeypatch):
    script = load(SCRIPT, monkeypatch)
    parts = script.parts("ENC", "1e-2")
    config = parts["regularizer"].get_config()
    assert config == {**config, "factor": 0.005, "epsilon": script.SHIFT}
    layer = parts["wrap"](keras.layers.Conv2D(4, 3))
    layer.build((None, 5, 5, 2))
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    assert np.linalg.norm(kernel) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decays", "1e-4", "-1"], "must be a finite number >= 0. Received: -1"),
        (["--decays", "inf"], "must be a finite number >= 0. Received: inf"),
        (["--decays", "strong"], "must be a finite number >= 0. Received: strong"),
        (["--decays"], "expected at least one argument"),
        (["--enc-decay", "nan"], "must be a finite number >= 0. Received: nan"),
        (["--epochs", "0"], "must be a whole number >= 1. Received: 0"),
        (["--seeds", "two"], "must be a whole number >= 1. Received: two"),
        (["--samples", "-5"], "must be a whole number >= 1. Received: -5"),
        (["--output", FOLDER / SCRIPT], "File exists"),
        (["--dataset", "no_such_data_set"], "no_such_data_set"),
    ],
)
def test_bad_arguments_stop_it_before_it_trains(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    check_refused(load(SCRIPT, monkeypatch), arguments, message, capsys)
