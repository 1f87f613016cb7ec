"""The figures draw what they are given, where they are told to."""

import csv
import itertools
import subprocess
import sys

import keras
import matplotlib
import numpy as np
import pytest
from keras import layers
from matplotlib import pyplot

import keras_gbr as gbr
from support.figures import ink, legend_texts, lines, trained
from support.networks import batch

GBR = {"gbr": [5.0, 40.0, 80.0], "accuracy": [0.5, 0.7, 0.875], "loss": [2.0, 1.0, 0.1]}
DECAYED = {
    "gbr": [4.0, 9.0, 8.0],
    "accuracy": [0.4, 0.6, 0.75],
    "val_accuracy": [0.3, 0.5, 0.625],
    "loss": [2.0, 1.5, 1.0],
    "val_loss": [2.0, 1.6, 1.2],
}


@pytest.fixture(autouse=True)
def closed_figures_and_default_settings():
    settings = dict(matplotlib.rcParams)
    yield
    pyplot.close("all")
    assert dict(matplotlib.rcParams) == settings


def test_gbr_curves_draw_the_values_and_name_the_final_accuracies():
    ax = gbr.plots.gbr_curves({"plain": GBR, "decayed": DECAYED})
    assert lines(ax) == {
        "plain: 87.5 %": ([1, 2, 3], GBR["gbr"]),
        "decayed: 75.0 %": ([1, 2, 3], DECAYED["gbr"]),
    }
    # Only one run has a validation accuracy, so that of the training is compared.
    assert ax.get_legend().get_title().get_text() == "final accuracy"
    assert legend_texts(ax) == list(lines(ax))
    assert ax.get_yscale() == "log"  # 4 to 80
    assert ax.get_xlabel() == "epoch"
    assert "GBR" in ax.get_ylabel()
    assert ink(ax) > 0.01

    ax = gbr.plots.gbr_curves({"decayed": DECAYED})
    assert list(lines(ax)) == ["decayed: 62.5 %"]
    assert ax.get_legend().get_title().get_text() == "final val_accuracy"
    assert ax.get_yscale() == "linear"  # 4 to 9
    assert legend_texts(gbr.plots.gbr_curves({"a": GBR}, accuracy="loss")) == ["a: 0.1"]
    ax = gbr.plots.gbr_curves({"a": GBR, "b": DECAYED}, "loss", accuracy=None)
    assert lines(ax) == {"a": ([1, 2, 3], GBR["loss"]), "b": ([1, 2, 3], DECAYED["loss"])}


def test_curves_take_histories_and_logs_of_csv_files(tmp_path):
    _, history = trained()
    values = history.history
    ax = gbr.plots.gbr_curves({"a": history, "b": values})
    assert lines(ax) == {
        f"{label}: {100 * values['val_accuracy'][-1]:.1f} %": ([1, 2], values["gbr"])
        for label in "ab"
    }
    # CSVLogger counts from 0 and writes NA where an epoch has no value.
    (tmp_path / "log.csv").write_text("epoch,gbr,val_accuracy\n4,1.5,NA\n5,NA,0.25\n6,3.5,0.5\n")
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    log = {name: [row[name] for row in rows] for name in rows[0]}
    ax = gbr.plots.gbr_curves(log)
    assert lines(ax) == {"50.0 %": ([5, 7], [1.5, 3.5])}
    assert lines(gbr.plots.gbr_curves(log, accuracy=None)).popitem()[1] == ([5, 7], [1.5, 3.5])


def test_a_family_of_numbers_has_colours_from_light_to_dark():
    decays = [1e-2, 0, 1e-8, 1e-4, "1e-3"]
    ax = gbr.plots.gbr_curves({"ENC": GBR, **dict.fromkeys(decays, GBR)}, accuracy=None)
    colors = {
        line.get_label(): np.array(matplotlib.colors.to_rgb(line.get_color()))
        for line in ax.get_lines()
    }
    assert list(colors) == ["ENC", "0.01", "0", "1e-08", "0.0001", "1e-3"]
    luminance = [
        colors[label] @ (0.21, 0.72, 0.07) for label in sorted(list(colors)[1:], key=float)
    ]
    assert (np.diff(luminance) < -0.05).all()
    # The one beside the family is of another hue: more red than blue.
    assert colors["ENC"][0] > colors["ENC"][2]
    assert len({tuple(color) for color in colors.values()}) == len(colors)
    for names in ("abcdefg", "abcdefghijkl"):
        drawn = gbr.plots.gbr_curves(dict.fromkeys(names, GBR)).get_lines()
        assert len({matplotlib.colors.to_hex(line.get_color()) for line in drawn}) == len(names)
    legend = gbr.plots.learning_curves({"ENC": GBR, **dict.fromkeys(decays, GBR)})
    assert legend_texts(legend) == list(colors)


def test_learning_curves_draw_training_and_validation():
    ax = gbr.plots.learning_curves(DECAYED)
    assert lines(ax) == {
        "accuracy": ([1, 2, 3], DECAYED["accuracy"]),
        "val_accuracy": ([1, 2, 3], DECAYED["val_accuracy"]),
    }
    assert [line.get_linestyle() for line in ax.get_lines()] == ["--", "-"]
    assert legend_texts(ax) == ["training", "validation"]
    assert ink(ax) > 0.01

    ax = gbr.plots.learning_curves({"plain": GBR, "decayed": DECAYED}, "loss")
    assert lines(ax) == {
        "plain loss": ([1, 2, 3], GBR["loss"]),
        "decayed loss": ([1, 2, 3], DECAYED["loss"]),
        "decayed val_loss": ([1, 2, 3], DECAYED["val_loss"]),
    }
    assert legend_texts(ax) == ["plain", "decayed", "training", "validation"]
    assert ax.get_yscale() == "log"
    assert gbr.plots.learning_curves(GBR).get_legend() is None
    # An accuracy may span a decade: it stays linear.
    assert gbr.plots.learning_curves({"accuracy": [0.05, 0.9]}).get_yscale() == "linear"


def test_kernel_norms_draw_the_norms_of_the_kernels_in_use():
    inputs = keras.Input((5,))
    hidden = layers.Dense(6, name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(hidden))
    model.get_layer("hidden").bias.assign(np.ones(6))
    expected = [np.linalg.norm(layer.get_weights()[0]) for layer in model.layers[1:]]

    ax = gbr.plots.kernel_norms(model)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(expected, rel=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["hidden", "head"]
    assert ax.get_legend() is None
    assert ax.yaxis_inverted()
    assert ink(ax) > 0.01

    enc = gbr.apply_enc(model, alpha=4.0, layers=lambda layer: layer.name == "hidden")
    alone = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="head")])
    ax = gbr.plots.kernel_norms({"plain": model, "ENC": enc, 3: alone})
    widths = [[bar.get_width() for bar in group] for group in ax.containers]
    assert widths[0] == pytest.approx(expected, rel=1e-6)
    assert widths[1] == pytest.approx([2.0, expected[1]], rel=1e-6)
    assert widths[2] == pytest.approx([np.linalg.norm(alone.get_weights()[0])], rel=1e-6)
    assert legend_texts(ax) == ["plain", "ENC", "3"]
    # Every bar lies in the row of its layer, and none on another.
    middles = [[bar.get_y() + bar.get_height() / 2 for bar in group] for group in ax.containers]
    assert [[round(middle) for middle in group] for group in middles] == [[0, 1], [0, 1], [1]]
    flat = sorted(itertools.chain(*middles))
    assert np.diff(flat).min() >= ax.patches[0].get_height() - 1e-9


def test_every_figure_draws_on_the_axes_it_is_given():
    model, history = trained()
    x, y = (part[:1] for part in batch((5,)))
    figure, axes = pyplot.subplots(2, 2)
    draw = [
        lambda ax: gbr.plots.gbr_curves(history, ax=ax),
        lambda ax: gbr.plots.learning_curves(history, ax=ax),
        lambda ax: gbr.plots.kernel_norms({"model": model}, ax=ax),
        lambda ax: gbr.plots.loss_landscape(model, x, y, resolution=3, ax=ax),
    ]
    for function, ax in zip(draw, axes.flat, strict=True):
        assert function(ax) is ax
        assert ax.has_data()
    assert pyplot.get_fignums() == [figure.number]
    for function in draw:
        with pytest.raises(ValueError, match=r"`ax` must be a matplotlib Axes.*Received: ax="):
            function(axes)


def test_without_matplotlib_only_the_figures_fail():
    script = """
import sys
sys.modules["matplotlib"] = None  # importing it raises ImportError
import keras_gbr
for draw in (
    lambda: keras_gbr.plots.gbr_curves({"gbr": [1.0]}),
    lambda: keras_gbr.plots.learning_curves({"loss": [1.0]}),
    lambda: keras_gbr.plots.kernel_norms(None),
    lambda: keras_gbr.plots.loss_landscape(None, None, None),
):
    try:
        draw()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("keras_gbr.plots needs matplotlib") == 4
    assert "pip install matplotlib" in done.stdout


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ({}, {}, "`runs` must be what `model.fit` returns"),
        (None, {}, "`runs` must be what `model.fit` returns"),
        ([GBR], {}, "`runs` must be what `model.fit` returns"),
        ({"a": GBR, "b": [1.0]}, {}, r"Received: runs\['b'\]=\[1.0\]"),
        ({"a": {}}, {}, r"Received: runs\['a'\]={}"),
        ({None: GBR}, {}, "labels of `runs` must be strings or numbers"),
        (GBR, {"metric": "val_gbr"}, r"`runs` has no 'val_gbr'\. It has 'gbr', 'accuracy', 'loss'"),
        ({"a": GBR}, {"accuracy": "top_5"}, r"`runs\['a'\]` has no 'top_5'"),
        ({"gbr": []}, {}, "must be a number for each epoch"),
        ({"gbr": ["high"]}, {}, "must be a number for each epoch"),
        ({"gbr": 3.0}, {}, "must be a number for each epoch"),
        ({"gbr": [[1.0], [2.0]]}, {}, "must be a number for each epoch"),
        ({"epoch": [0, 1], "gbr": [1.0]}, {}, "must have a value for each epoch"),
    ],
)
def test_bad_runs(runs, options, message):
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        gbr.plots.gbr_curves(runs, **options)
    assert "Received: " in str(error.value)
    assert not pyplot.get_fignums()


def test_bad_metrics_and_models():
    with pytest.raises(ValueError, match=r"has no 'gbr'.*Received: metric='gbr'"):
        gbr.plots.learning_curves({"a": GBR, "b": {"loss": [1.0]}}, "gbr")
    for models, message in [
        ({}, "`models` must hold a model"),
        (None, "`model` must be a built"),
        ({"a": keras.Sequential([layers.Dense(2)])}, "`model` must be a built"),
        (keras.Sequential([keras.Input((2,)), layers.ReLU()]), "must have a layer with a kernel"),
    ]:
        with pytest.raises(ValueError, match=f"{message}.*Received: "):
            gbr.plots.kernel_norms(models)
    assert not pyplot.get_fignums()
