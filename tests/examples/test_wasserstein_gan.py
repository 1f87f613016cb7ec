"""The Wasserstein GAN: its critic's step and its measures by NumPy, and the example itself."""

import csv
import math

import keras
import matplotlib.image
import numpy as np
import pytest

from support.calls import deviation
from support.networks import jacobians, predictions, use_float64
from support.scripts import check_refused, load

pytest.importorskip("sklearn")

SCRIPT = "wasserstein_gan.py"
COLUMNS = ["distance", "held_out_distance", "penalty", "gradient_norm", "precision", "recall"]


@pytest.fixture
def example(monkeypatch):
    return load(SCRIPT, monkeypatch)


def pair(example, rate, critic_rate):
    """A pair trained by plain gradient descent, and real images for one step."""
    optimizers = (keras.optimizers.SGD(each) for each in (rate, critic_rate))
    gan = example.WassersteinGAN(*optimizers, weight=10.0, seed=0)
    images = np.random.default_rng(0).random((example.CRITIC_STEPS * 64, *example.SHAPE))
    return gan, images


def test_a_step_of_the_critic_minimises_the_distance_and_the_penalty(example):
    """Its loss, from the scores and from central differences of them."""
    use_float64()
    gan, images = pair(example, 0.0, 0.0)
    batches = []
    step = gan.critic.train_on_batch
    gan.critic.train_on_batch = lambda x, *rest, **options: (
        batches.append(x),
        step(x, *rest, **options),
    )[1]
    logs = gan.train_step(images)

    # With learning rate 0 the critic is the same in all steps.
    for index, (x, log) in enumerate(zip(batches, logs, strict=True)):
        between, real, generated = np.split(x, 3)
        np.testing.assert_array_equal(real, images[64 * index : 64 * (index + 1)])
        # For a point between two, the distances to both add up to the distance of the two.
        ends = [
            np.linalg.norm((between - end).reshape(64, -1), axis=1) for end in (real, generated)
        ]
        apart = np.linalg.norm((real - generated).reshape(64, -1), axis=1)
        np.testing.assert_allclose(sum(ends), apart, rtol=1e-12)
        scores = [predictions(gan.critic, images).mean() for images in (real, generated)]
        # On some backends Keras' metrics round to single precision.
        assert -log["scores"] == pytest.approx(scores[0] - scores[1], rel=1e-6)
        rows = jacobians(lambda x: predictions(gan.critic, x), between, step=1e-7)[:, 0]
        penalty = np.mean((np.linalg.norm(rows, axis=1) - 1) ** 2)
        # Leaky ReLUs are linear except at kinks, which few of these small differences cross.
        assert log["penalty"] == pytest.approx(penalty, rel=1e-4)
        assert log["loss"] == pytest.approx(scores[1] - scores[0] + 10 * penalty, rel=1e-4)


@pytest.mark.parametrize("rates", [(0.0, 1e-3), (1e-3, 0.0)])
def test_a_step_changes_each_network_by_its_own_optimizer(example, rates):
    gan, images = pair(example, *rates)
    networks = (gan.generator, gan.critic)
    before = [network.get_weights()[0] for network in networks]
    gan.train_step(images)
    changed = [
        not np.array_equal(weights, network.get_weights()[0])
        for weights, network in zip(before, networks, strict=True)
    ]
    assert changed == [rate > 0 for rate in rates]


def test_a_step_of_the_generator_follows_the_gradient_of_the_mean_score(example):
    """The change of its last bias by the chain rule, with central differences of the score."""
    use_float64()
    gan, images = pair(example, 0.1, 1e-2)
    noises, noise = [], gan.noise
    gan.noise = lambda count: (noises.append(noise(count)), noises[-1])[1]
    before = gan.generator.get_weights()
    gan.train_step(images)
    after = gan.generator.get_weights()
    gan.generator.set_weights(before)
    # The generator sees the critic as these steps leave it.
    pixels = predictions(gan.generator, noises[-1])
    rows = jacobians(lambda x: predictions(gan.critic, x), pixels, step=1e-7)[:, 0]
    pixels = pixels.reshape(rows.shape)
    expected = np.mean(rows * pixels * (1 - pixels), axis=0)
    assert deviation((after[-1] - before[-1]) / 0.1, expected) < 1e-4


def like(reference, image, neighbours):
    """Whether an image is closer to some image of a set than that image to its k-th neighbour."""
    for index, other in enumerate(reference):
        rest = np.delete(reference, index, axis=0)
        radius = np.sort(np.linalg.norm(rest - other, axis=1))[neighbours - 1]
        if np.linalg.norm(image - other) <= radius:
            return True
    return False


def test_precision_and_recall_by_their_definition(monkeypatch):
    report = load("common.gan_report", monkeypatch)
    rng = np.random.default_rng(0)
    real, generated = rng.standard_normal((30, 4)), 1.0 + 0.7 * rng.standard_normal((30, 4))
    expected = (
        np.mean([like(real, image, 3) for image in generated]),
        np.mean([like(generated, image, 3) for image in real]),
    )
    assert report.precision_and_recall(real, generated) == pytest.approx(expected)
    assert 0 < expected[1] < expected[0] < 1
    assert report.precision_and_recall(real, real) == (1.0, 1.0)
    assert report.precision_and_recall(real, real + 100) == (0.0, 0.0)
    nearest = [min(np.linalg.norm(real - image, axis=1)) for image in generated]
    assert report.nearest(real, generated) == pytest.approx(np.median(nearest))


def test_the_example_writes_a_table_and_a_figure(tmp_path, run):
    printed = run(SCRIPT, "--smoke", "--output", tmp_path / "new")
    assert "[2/2] distance" in printed
    with open(tmp_path / "new" / "wasserstein_gan.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert all(math.isfinite(float(row[column])) for column in COLUMNS)
        assert 0.5 < float(row["gradient_norm"]) < 2
    height, width, _ = matplotlib.image.imread(tmp_path / "new" / "wasserstein_gan.png").shape
    assert width > 1000
    assert height > 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "must be a whole number >= 1. Received: 0"),
        (["--seed", "one"], "must be a whole number >= 0. Received: one"),
        (["--weight", "0"], "must be a number > 0. Received: 0"),
        (["--output", __file__], "File exists"),
    ],
)
def test_bad_arguments(example, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    check_refused(example, arguments, message, capsys)
