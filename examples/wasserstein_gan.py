"""A Wasserstein GAN on digits. A penalty keeps the slope of its critic at 1 (WGAN-GP).

    python examples/wasserstein_gan.py [--epochs N] [--weight W] [--seed S]

Gulrajani et al. 2017. The critic is a `GBRModel` with `InputGradient(weight, target=1,
of="output")`. See examples/README.md.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from common.tools import at_least, positive, quiet_imports, write_csv

with quiet_imports(__file__):
    import keras
    import numpy as np
    from common.gan_report import nearest, precision_and_recall, write_figure
    from common.images import load
    from keras import layers, ops

    import keras_gbr as gbr

SHAPE = (8, 8, 1)
LATENT = 16
BATCH_SIZE = 64
CRITIC_STEPS = 5  # for each step of the generator
STEPS = 100  # of the generator, per epoch
LEARNING_RATE = 1e-3  # falls to 0


def network(shape: tuple[int, ...], widths: tuple[int, ...]) -> tuple[Any, Any]:
    """Dense layers, without normalisation: it would make a sample's score depend on others."""
    start = keras.Input(shape)
    x = layers.Flatten()(start)
    for width in widths:
        x = layers.LeakyReLU(0.2)(layers.Dense(width)(x))
    return start, x


def make_generator() -> keras.Model:
    start, x = network((LATENT,), (128, 256))
    pixels = layers.Dense(int(np.prod(SHAPE)), activation="sigmoid")(x)
    return keras.Model(start, layers.Reshape(SHAPE)(pixels))


def make_critic() -> gbr.GBRModel:
    start, x = network(SHAPE, (256, 128))
    return gbr.GBRModel(start, layers.Dense(1)(x))


def weighted_score(y_true: Any, y_pred: Any) -> Any:
    """The loss of both networks: each label times the score."""
    return ops.mean(ops.cast(y_true, y_pred.dtype) * y_pred, axis=-1)


class WassersteinGAN:
    """A generator and its critic, trained in turn.

    The critic trains on batches of three parts: points between real and generated images, the
    real ones, the generated ones. The penalty is taken on the first part, `fraction=1/3`. The
    labels keep that part out of the loss: with 0, -3 and 3 for the parts, the mean of label
    times score is the mean score of the generated images minus that of the real ones.

    The generator trains inside a model that ends with the critic's score. It must raise the score,
    so its labels are -1. The critic in that model is a frozen copy.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        critic_optimizer: keras.optimizers.Optimizer,
        weight: float,
        seed: int,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.generator, self.critic, self.copy = make_generator(), make_critic(), make_critic()
        penalty = gbr.InputGradient(weight, target=1.0, of="output", fraction=1 / 3, name="penalty")
        scores = keras.metrics.MeanMetricWrapper(weighted_score, name="scores")
        self.critic.compile(critic_optimizer, weighted_score, metrics=[scores], penalties=[penalty])
        self.copy.trainable = False
        self.scored = keras.Model(self.generator.input, self.copy(self.generator.output))
        self.scored.compile(optimizer, weighted_score)

    def noise(self, count: int) -> np.ndarray:
        return self.rng.standard_normal((count, LATENT), keras.config.floatx())

    def between(self, real: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """A random point on the line between each real and generated image."""
        share = self.rng.random((len(real), 1, 1, 1), real.dtype)
        return share * real + (1 - share) * generated

    def train_step(self, images: np.ndarray) -> list[dict[str, float]]:
        """Some steps of the critic, each on images of its own, then one of the generator.

        Args:
            images: Real images, a batch for each step of the critic.

        Returns:
            The logs of each step of the critic.
        """
        logs = []
        others = self.generator.predict_on_batch(self.noise(len(images)))
        labels = np.repeat([0.0, -3.0, 3.0], BATCH_SIZE)[:, None]
        for start in range(0, len(images), BATCH_SIZE):
            real, generated = (part[start : start + BATCH_SIZE] for part in (images, others))
            x = np.concatenate([self.between(real, generated), real, generated])
            # Older versions of Keras continue with the metrics of the step before.
            self.critic.reset_metrics()
            logs.append(self.critic.train_on_batch(x, labels, return_dict=True))
        self.copy.set_weights(self.critic.get_weights())
        self.scored.train_on_batch(self.noise(BATCH_SIZE), -np.ones((BATCH_SIZE, 1)))
        return logs


class Monitor:
    """Measures and prints after every epoch, on images that were not used in training.

    Attributes:
        rows: What was measured, a row per epoch.
    """

    def __init__(self, real: np.ndarray, epochs: int) -> None:
        self.real, self.epochs = real, epochs
        self.rows: list[dict[str, float]] = []
        self.start = time.monotonic()
        self.noise = np.random.default_rng(0).standard_normal((len(real), LATENT))

    def images(self, gan: WassersteinGAN) -> np.ndarray:
        """As many generated images as real ones, from the same noise every time."""
        return gan.generator.predict_on_batch(self.noise)

    def measure(self, gan: WassersteinGAN, logs: list[dict[str, float]]) -> None:
        """Adds a row for an epoch whose steps left these logs, and prints it."""
        generated = self.images(gan)
        points = gan.between(self.real, generated)
        # A penalty's value is that of each sample: here the squared norms.
        squares = gbr.InputGradient(0.0, of="output")(gan.critic.forward_pass(points))
        precision, recall = precision_and_recall(self.real, generated)
        real, fake = (np.mean(gan.critic.predict_on_batch(x)) for x in (self.real, generated))
        row = {
            "epoch": len(self.rows) + 1,
            "distance": -float(np.mean([each["scores"] for each in logs])),
            "held_out_distance": float(real - fake),
            "penalty": float(np.mean([each["penalty"] for each in logs])),
            "gradient_norm": float(np.mean(np.sqrt(ops.convert_to_numpy(squares)))),
            "precision": precision,
            "recall": recall,
        }
        self.rows.append(row)
        values = ", ".join(f"{name.replace('_', ' ')} {row[name]:.3g}" for name in list(row)[1:])
        passed = time.monotonic() - self.start
        print(f"[{row['epoch']}/{self.epochs}] {values}: {passed:.0f} s", flush=True)


def train(
    images: np.ndarray, monitor: Monitor, weight: float, steps: int, seed: int
) -> WassersteinGAN:
    """A new pair, trained for the epochs of the monitor."""
    keras.utils.set_random_seed(seed)

    def adam(updates: int) -> keras.optimizers.Optimizer:
        rate = keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, updates, 0.0)
        return keras.optimizers.Adam(rate, beta_1=0.0, beta_2=0.9)

    updates = monitor.epochs * steps
    gan = WassersteinGAN(adam(updates), adam(CRITIC_STEPS * updates), weight, seed)
    for _ in range(monitor.epochs):
        logs = []
        for _ in range(steps):
            batch = gan.rng.choice(images, CRITIC_STEPS * BATCH_SIZE, replace=False)
            logs += gan.train_step(batch)
        monitor.measure(gan, logs)
    return gan


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--epochs", type=at_least(1), default=60, help=f"of {STEPS} steps of the generator each")
    add("--weight", type=positive, default=10.0, help="weight of the penalty")
    add("--seed", type=at_least(0), default=0, help="of the start, the noise and the order")
    add("--output", type=Path, default=Path("results"), help="folder for the CSV and the PNG")
    add("--smoke", action="store_true", help="two epochs of three steps: only a test")
    options = parser.parse_args(argv)
    options.steps = 3 if options.smoke else STEPS
    if options.smoke:
        options.epochs = 2
    return options


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"wasserstein_gan.py: error: {error}") from None
    data = load()
    images, real = np.concatenate([data.train[0], data.validation[0]]), data.test[0]
    monitor = Monitor(real, options.epochs)
    gan = train(images, monitor, options.weight, options.steps, options.seed)
    generated = monitor.images(gan)
    reached = precision_and_recall(real, images[: len(real)])
    print(
        f"\nReal images in the place of the generated ones: precision {reached[0]:.3g}, "
        f"recall {reached[1]:.3g}"
    )
    print(
        "Median distance to the nearest training image: "
        f"generated {nearest(images, generated):.3g}, held out {nearest(images, real):.3g}"
    )
    write_csv(monitor.rows, options.output / "wasserstein_gan.csv")
    write_figure(monitor.rows, real, generated, reached, options.output / "wasserstein_gan.png")
    print(f"Written: {options.output}/wasserstein_gan.csv and .png")


if __name__ == "__main__":
    main()
