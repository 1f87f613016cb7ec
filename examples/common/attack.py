"""A network for attacks by the adversarial-robustness-toolbox, on every backend of Keras."""

import functools
from typing import Any

import keras
import numpy as np
from art.estimators import LossGradientsMixin
from art.estimators.classification import BlackBoxClassifier

import keras_gbr as gbr


class LossGradient(keras.Model):
    """The gradient of each sample's loss by its image, as a model: `predict` compiles it."""

    def __init__(self, network: gbr.GBRModel) -> None:
        super().__init__()
        self.network = network

    def call(self, inputs: Any) -> Any:
        images, labels = inputs
        forward = self.network.forward_pass(images, labels)
        return forward.input_gradients(gbr.ForwardPass.losses)[0]


class Classifier(LossGradientsMixin, BlackBoxClassifier):
    """A classifier of images in [0, 1] whose gradients come from keras_gbr.

    ART's own classifiers get their gradients from TensorFlow or PyTorch. It has none for JAX.

    Args:
        network: A model that is compiled with its loss.
        classes: The number of classes.
    """

    def __init__(self, network: gbr.GBRModel, classes: int) -> None:
        predict = functools.partial(network.predict, verbose=0)
        super().__init__(predict, network.input_shape[1:], classes, clip_values=(0.0, 1.0))
        self._loss_gradient = LossGradient(network)

    def loss_gradient(self, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> np.ndarray:
        labels = np.argmax(y, axis=1)
        return self._loss_gradient.predict([x, labels], batch_size=len(x), verbose=0)
