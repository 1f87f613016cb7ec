"""What compare_methods.py measures on trained models."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from art.attacks.evasion import FastGradientMethod

import keras_gbr as gbr
from common.attack import Classifier
from common.images import Data, Split

# The largest number of images on which GBR, FGSM and the gradients are measured.
MEASURED = 500
BATCH_SIZE = 250
TIMED_STEPS = 15


class Examiner:
    """Measures trained models.

    `strip` turns the model of every method into the same plain network. So one such network
    takes the weights of each in turn, and the measurements are compiled once.

    Args:
        build: Function of `penalties=` that returns the plain network, compiled.
        data: The images.
        epsilon: The largest change of a pixel by the attack.
        shift: The epsilon of `ShiftedL2`.
    """

    def __init__(
        self, build: Callable[..., keras.Model], data: Data, epsilon: float, shift: float
    ) -> None:
        self.data, self.shift = data, shift
        self.input_gradient, self.parameter_gradient = (
            gbr.InputGradient(0.0),
            gbr.ParameterGradient(0.0),
        )
        self.network = build(penalties=[self.input_gradient, self.parameter_gradient])
        classifier = Classifier(self.network, data.classes)
        self.attack = FastGradientMethod(classifier, eps=epsilon, batch_size=BATCH_SIZE)

    def take(self, model: keras.Model) -> None:
        """Takes over the weights of a trained model for the measurements that follow."""
        self.network.set_weights(gbr.strip(model).get_weights())

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        logs = self.network.evaluate(
            images, labels, batch_size=BATCH_SIZE, verbose=0, return_dict=True
        )
        return logs["accuracy"]

    def gbr(self, images: np.ndarray, of: str) -> float:
        return gbr.measures.gbr(self.network, images, of, batch_size=BATCH_SIZE, verbose=0)

    def columns(self) -> dict[str, float]:
        """The columns of the table, without the step time."""
        train, test = self.accuracy(*self.data.train), self.accuracy(*self.data.test)
        images, labels = (part[:MEASURED] for part in self.data.test)
        return {
            "train_accuracy": train,
            "test_accuracy": test,
            "gap": train - test,
            "gbr": self.gbr(images, "output"),
            "gbr_probabilities": self.gbr(images, "probabilities"),
            "fgsm_accuracy": self.accuracy(self.attack.generate(images, labels), labels),
        }

    def quantities(self) -> dict[str, float]:
        """The quantities that the methods reduce, besides the GBR.

        The gradients are taken on test images: on training images the loss and its gradient are
        near zero for every method.
        """
        kernels = [layer.kernel for layer in self.network.layers if hasattr(layer, "kernel")]
        images, labels = (part[:MEASURED] for part in self.data.test)
        forward = self.network.forward_pass(images, labels)
        square = keras.regularizers.L2(1.0)

        def total(regularizer: Callable[[Any], Any]) -> Any:
            return sum(map(regularizer, kernels))

        values = {
            "sum ||W||^2": total(square),
            "sum sigma(W)^2": total(gbr.Spectral(1.0, method="svd")),
            "prod ||W||": keras.ops.exp(total(gbr.WEISSI(1.0))),
            "shifted L2 of W": total(gbr.ShiftedL2(1.0, self.shift)),
            "mean ||W||^2, conv.": sum(map(square, kernels[:-1])) / len(kernels[:-1]),
            "||d loss/dx||^2": self.input_gradient(forward),
            "||d L/dW||^2": self.parameter_gradient(forward),
        }
        # The value of the input gradient is one per sample.
        arrays = {name: keras.ops.convert_to_numpy(value) for name, value in values.items()}
        return {name: float(np.mean(array)) for name, array in arrays.items()}


def relative_step_time(model: keras.Model, reference: keras.Model, batch: Split) -> float:
    """Median time of a training step over that of the reference, measured in turns.

    `train_on_batch` returns floats, so it waits for the step even if the backend runs ahead.
    """
    times: dict[keras.Model, list[float]] = {model: [], reference: []}
    for each in times:
        each.train_on_batch(*batch)
    for turn in range(TIMED_STEPS):
        # The order alternates: the second model finds warmer caches.
        for each in list(times)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            each.train_on_batch(*batch)
            times[each].append(time.perf_counter() - start)
    return float(np.median(times[model]) / np.median(times[reference]))
