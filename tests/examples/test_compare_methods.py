"""The examples run from the command line and say what is wrong with their arguments."""

import csv
import math

import keras
import matplotlib.image
import numpy as np
import pytest

import keras_gbr as gbr
from support.networks import cross_entropies, jacobians, logits_loss, predictions, use_float64
from support.scripts import FOLDER, check_refused, load

pytest.importorskip("art")

BACKEND = keras.backend.backend()
SCRIPT = "compare_methods.py"
METHODS = ["plain", "l2", "enc-22", "weight-norm", "jacobian"]
MEASURES = [
    "train_accuracy",
    "test_accuracy",
    "gap",
    "gbr",
    "gbr_probabilities",
    "fgsm_accuracy",
    "step_time",
]


def test_compare_methods_writes_a_table_and_a_figure(tmp_path, run):
    arguments = ["--methods", *METHODS[:0:-1], "--output", tmp_path / "new" / "folder"]
    printed = run(SCRIPT, "--smoke", *arguments)
    assert f"[{len(METHODS)}/{len(METHODS)}]" in printed
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "compare_methods.csv",
        "compare_methods.png",
    ]

    with open(folder / "compare_methods.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == METHODS
    for row in rows:
        values = {name: float(row[name]) for name in MEASURES}
        spreads = [float(row[f"{name}_spread"]) for name in MEASURES]
        assert all(map(math.isfinite, [*values.values(), *spreads]))
        for name in ("train_accuracy", "test_accuracy", "fgsm_accuracy"):
            assert 0 <= values[name] <= 1
        gap = values["train_accuracy"] - values["test_accuracy"]
        assert values["gap"] == pytest.approx(gap, abs=1e-6)
        assert values["gbr"] > 0
        assert values["step_time"] > 0
        assert row["method"] in printed

    by_name = {row["method"]: row for row in rows}
    assert float(by_name["enc-22"]["own"]) == pytest.approx(
        float(by_name["enc-22"]["setting"].removeprefix("alpha=")), rel=1e-3
    )
    assert float(by_name["l2"]["own"]) < float(by_name["l2"]["own_plain"])
    assert by_name["plain"]["own"] == by_name["weight-norm"]["own"] == ""

    height, width, _ = matplotlib.image.imread(folder / "compare_methods.png").shape
    assert width > 1000
    assert height > 200


@pytest.mark.jax
def test_the_attack_moves_every_pixel_by_the_sign_of_the_loss_gradient(monkeypatch):
    """Against central differences of the cross entropy, and within [0, 1]."""
    use_float64()
    from art.attacks.evasion import FastGradientMethod

    inputs = keras.Input((3, 4, 1))
    hidden = keras.layers.Dense(6, activation="tanh")(keras.layers.Flatten()(inputs))
    network = gbr.GBRModel(inputs, keras.layers.Dense(3)(hidden))
    network.compile(loss=logits_loss())
    rng = np.random.default_rng(0)
    images, labels = rng.random((10, 3, 4, 1)).astype("float32"), rng.integers(0, 3, 10)
    classifier = load("common.attack", monkeypatch).Classifier(network, 3)
    moved = FastGradientMethod(classifier, eps=0.2, batch_size=4).generate(images, labels)

    def losses(x):
        return cross_entropies(predictions(network, x), labels)

    signs = np.sign(jacobians(losses, images.astype("float64"))).reshape(images.shape)
    np.testing.assert_allclose(moved, np.clip(images + 0.2 * signs, 0, 1), atol=1e-6)
    assert np.ptp(moved - images) > 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "l2", "l3"], "invalid choice: 'l3'"),
        (["--epochs", "0"], "must be a whole number >= 1. Received: 0"),
        (["--seeds", "two"], "must be a whole number >= 1. Received: two"),
        (["--samples", "-5"], "must be a whole number >= 1. Received: -5"),
        (["--epsilon", "2"], "must be in (0, 1]. Received: 2.0"),
        (["--output", FOLDER / SCRIPT], "File exists"),
        (["--dataset", "no_such_data_set"], "no_such_data_set"),
    ],
)
def test_bad_arguments_stop_the_comparison_before_it_trains(
    monkeypatch, capsys, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    check_refused(load(SCRIPT, monkeypatch), arguments, message, capsys)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="The examples run under TensorFlow.")
@pytest.mark.parametrize("script", ["multi_worker.py", "implicit_regularization.py"])
def test_what_needs_tensorflow_says_so(script, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", BACKEND)
    message = f"Received: KERAS_BACKEND={BACKEND}"
    check_refused(load(script, monkeypatch), [], message, capsys)


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch):
    tools = load("common.tools", monkeypatch)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    message = r"^some.py: error: the package 'no_such_package' .*pip install .*\[jax,examples\]"
    with pytest.raises(SystemExit, match=message), tools.quiet_imports("examples/some.py"):
        import no_such_package  # noqa: F401


def test_data_of_tfds_without_tensorflow_are_refused_with_the_way_to_install_it(monkeypatch):
    data = load("common.images", monkeypatch)
    monkeypatch.setattr(data, "find_spec", lambda name: None if name == "tensorflow" else name)
    with pytest.raises(ValueError, match=r"pip install tensorflow. Received: 'cifar10'"):
        data.load("cifar10")
