"""A Wasserstein GAN on digits, its critic held to slope 1 by a penalty (WGAN-GP).

    python examples/wasserstein_gan.py [--epochs N] [--weight W] [--seed S]

Gulrajani et al. 2017. The critic is a `GBRModel` with `InputGradient(weight, target=1,
of="output")`. See examples/README.md.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from example_tools import at_least, positive, quiet_imports, write_csv

with quiet_imports(__file__):
    import keras
    import numpy as np
    import tensorflow as tf
    from compare_data import load
    from gan_report import nearest, precision_and_recall, write_figure
    from keras import layers, ops

    import keras_gbr as gbr

SHAPE = (8, 8, 1)
LATENT = 16
BATCH_SIZE = 64
CRITIC_STEPS = 5  # for each step of the generator
STEPS = 100  # of the generator, an epoch
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
    """The loss of the critic: each label times the score."""
    return ops.mean(y_true * y_pred, axis=-1)


class WassersteinGAN(keras.Model):
    """A generator and its critic, trained in turn by `fit` on images.

    The critic trains on batches of three parts: points between real and generated images, the
    real ones, the generated ones. The penalty is taken on the first part, `fraction=1/3`. The
    labels keep that part out of the loss: with 0, -3 and 3 for the parts, the mean of label
    times score is the mean score of the generated images minus that of the real ones.
    """

    def __init__(self, generator: keras.Model, critic: gbr.GBRModel, seed: int) -> None:
        super().__init__()
        self.generator, self.critic = generator, critic
        self.seeds = keras.random.SeedGenerator(seed)
        self.built = True

    def compile(self, optimizer: Any, critic_optimizer: Any, weight: float) -> None:
        super().compile(optimizer)
        penalty = gbr.InputGradient(weight, target=1.0, of="output", fraction=1 / 3, name="penalty")
        scores = keras.metrics.MeanMetricWrapper(weighted_score, name="scores")
        self.critic.compile(critic_optimizer, weighted_score, metrics=[scores], penalties=[penalty])
        # Here, since variables cannot be made inside the compiled step.
        self.optimizer.build(self.generator.trainable_variables)
        self.critic.optimizer.build(self.critic.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.critic.metrics

    def generate(self, count: int) -> Any:
        return self.generator(keras.random.normal((count, LATENT), seed=self.seeds))

    def between(self, real: Any, generated: Any) -> Any:
        """A random point on the line between each real and generated image."""
        share = keras.random.uniform((real.shape[0], 1, 1, 1), seed=self.seeds)
        return share * real + (1 - share) * generated

    def train_step(self, images: Any) -> dict[str, Any]:
        """Some steps of the critic, each on images of its own, then one of the generator."""
        for real in ops.split(images, CRITIC_STEPS):
            generated = self.generate(BATCH_SIZE)
            x = ops.concatenate([self.between(real, generated), real, generated])
            labels = ops.convert_to_tensor([[0.0], [-3.0], [3.0]], x.dtype)
            y = ops.repeat(labels, BATCH_SIZE, axis=0)
            logs = self.critic.train_step((x, y))
        # The critic stays as it is: its weights get no gradient.
        weights = self.generator.trainable_variables
        with tf.GradientTape() as tape:
            loss = -ops.mean(self.critic(self.generate(BATCH_SIZE)))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return logs


class Monitor(keras.callbacks.Callback):
    """Measures and prints after every epoch, on images that had no part in the training.

    Attributes:
        rows: What was measured, a row an epoch.
    """

    def __init__(self, real: np.ndarray, epochs: int) -> None:
        super().__init__()
        self.real, self.epochs = real, epochs
        self.rows: list[dict[str, float]] = []
        self.start = time.monotonic()
        noise = np.random.default_rng(0).standard_normal((len(real), LATENT))
        self.noise = noise.astype("float32")

    def images(self) -> np.ndarray:
        """As many generated images as real ones, of the same noise every time."""
        return ops.convert_to_numpy(self.model.generator(self.noise))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        generated = self.images()
        points = self.model.between(self.real, generated)
        # A penalty's value is that of each sample: here the squared norms.
        squares = gbr.InputGradient(0.0, of="output")(self.model.critic.forward_pass(points))
        precision, recall = precision_and_recall(self.real, generated)
        scores = [ops.mean(self.model.critic(images)) for images in (self.real, generated)]
        row = {
            "epoch": epoch + 1,
            "distance": -float(logs["scores"]),
            "held_out_distance": float(scores[0] - scores[1]),
            "penalty": float(logs["penalty"]),
            "gradient_norm": float(ops.mean(ops.sqrt(squares))),
            "precision": precision,
            "recall": recall,
        }
        self.rows.append(row)
        values = ", ".join(f"{name.replace('_', ' ')} {row[name]:.3g}" for name in list(row)[1:])
        passed = time.monotonic() - self.start
        print(f"[{epoch + 1}/{self.epochs}] {values}: {passed:.0f} s", flush=True)


def train(images: np.ndarray, monitor: Monitor, weight: float, steps: int, seed: int) -> None:
    """Trains a new pair for the epochs of the monitor."""
    keras.utils.set_random_seed(seed)
    gan = WassersteinGAN(make_generator(), make_critic(), seed)

    def adam(updates: int) -> keras.optimizers.Optimizer:
        rate = keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, updates, 0.0)
        return keras.optimizers.Adam(rate, beta_1=0.0, beta_2=0.9)

    updates = monitor.epochs * steps
    gan.compile(adam(updates), adam(CRITIC_STEPS * updates), weight)
    dataset = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images), seed).repeat()
    dataset = dataset.batch(CRITIC_STEPS * BATCH_SIZE, drop_remainder=True)
    gan.fit(
        dataset,
        epochs=monitor.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[monitor],
    )


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
    train(images, monitor, options.weight, options.steps, options.seed)
    generated = monitor.images()
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
