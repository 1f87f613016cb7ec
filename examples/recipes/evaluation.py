"""What a trained network is like: accuracy, GBR, and accuracy under attack."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np
from common.images import Split

import keras_gbr as gbr
from recipes.config import Config
from recipes.datasets import Images, as_pixels
from recipes.networks.drop_block import DropBlock
from recipes.streams import Stream

BATCH_SIZE = 500
MOST_TRAINING = 100_000
OWN_FGSM = "one step written here"
TOOLBOX = "adversarial-robustness-toolbox"
# Above so many classes the GBR is estimated, by random projections.
EXACT_CLASSES = 32


def plain_network(model: keras.Model) -> gbr.GBRModel:
    """The trained function as plain layers, compiled with the crossentropy of labels."""
    stripped = _without_drop_block(gbr.strip(keras.Model(model.inputs, model.outputs)))
    network = gbr.GBRModel(stripped.inputs, stripped.outputs)
    network.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return network


def _without_drop_block(model: keras.Model) -> keras.Model:
    """The model without the layer of the recipes, which does nothing outside of training."""

    def replaced(layer: keras.Layer) -> keras.Layer:
        kind = keras.layers.Identity if isinstance(layer, DropBlock) else type(layer)
        config = {"name": layer.name} if kind is keras.layers.Identity else layer.get_config()
        return kind.from_config(config)

    if not any(isinstance(layer, DropBlock) for layer in model.layers):
        return model
    plain = keras.models.clone_model(model, clone_function=replaced)
    for layer in plain.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights()[: len(layer.weights)])
    return plain


def measured(network: gbr.GBRModel, images: Images | Stream, config: Config) -> dict[str, Any]:
    """The measures of a trained network, by their names in `result.json`.

    Accuracies are of all images, but at most `MOST_TRAINING` training images. GBR and attacks are
    on the first `config.attacked` test images.
    """
    train = accuracy(network, images.parts("train", MOST_TRAINING))
    test = accuracy(network, images.parts("test"))
    found = {
        "train_accuracy": train["accuracy"],
        "test_accuracy": test["accuracy"],
        "gap": train["accuracy"] - test["accuracy"],
        "test_loss": test["loss"],
    }
    x, y = images.first("test", config.attacked)
    x = as_pixels(x)
    for name, of in (("gbr", "output"), ("gbr_probabilities", "probabilities")):
        found[name], found[f"{name}_standard_error"] = gbr_of(network, x, of, images.classes)
    return found | attacked(network, x, y, images.classes, config)


def accuracy(network: keras.Model, parts: Iterable[Split]) -> dict[str, float]:
    """Mean loss and accuracy on images that come in parts."""
    seen, sums = 0, {"loss": 0.0, "accuracy": 0.0}
    for x, y in parts:
        logs = network.evaluate(as_pixels(x), y, batch_size=BATCH_SIZE, verbose=0, return_dict=True)
        sums = {name: total + logs[name] * len(x) for name, total in sums.items()}
        seen += len(x)
    return {name: total / seen for name, total in sums.items()}


def gbr_of(network: gbr.GBRModel, images: np.ndarray, of: str, classes: int) -> tuple[float, float]:
    """The GBR and its standard error."""
    value = gbr.measures.gbr(
        network,
        images,
        of,
        num_projections=None if classes <= EXACT_CLASSES else EXACT_CLASSES,
        batch_size=BATCH_SIZE // 2,
        standard_error=True,
        verbose=0,
    )
    return float(value[0]), float(value[1])


def attacked(
    network: gbr.GBRModel, images: np.ndarray, labels: np.ndarray, classes: int, config: Config
) -> dict[str, Any]:
    """Accuracies under FGSM and PGD, with the adversarial-robustness-toolbox if it is there."""
    fgsm_epsilon, pgd_epsilon = config.attack_strengths
    found: dict[str, Any] = {
        "fgsm_epsilon": fgsm_epsilon,
        "pgd_epsilon": pgd_epsilon,
        "pgd_steps": config.pgd_steps,
        "attacked": len(images),
        "pgd_accuracy": None,
    }
    if find_spec("art") is None:
        moved = fgsm(network, images, labels, fgsm_epsilon)
        found["fgsm_by"] = OWN_FGSM
    else:
        from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentNumpy
        from common.attack import Classifier

        classifier = Classifier(network, classes)
        single = FastGradientMethod(classifier, eps=fgsm_epsilon, batch_size=BATCH_SIZE)
        moved = single.generate(images, labels)
        found["fgsm_by"] = TOOLBOX
        several = ProjectedGradientDescentNumpy(
            classifier,
            eps=pgd_epsilon,
            eps_step=2.5 * pgd_epsilon / config.pgd_steps,
            max_iter=config.pgd_steps,
            batch_size=BATCH_SIZE,
            verbose=False,
        )
        further = several.generate(images, labels)
        found["pgd_accuracy"] = accuracy(network, [(further, labels)])["accuracy"]
    found["fgsm_accuracy"] = accuracy(network, [(moved, labels)])["accuracy"]
    return found


def fgsm(
    network: gbr.GBRModel, images: np.ndarray, labels: np.ndarray, epsilon: float
) -> np.ndarray:
    """Images after one step of the fast gradient sign method (Goodfellow et al. 2015)."""
    moved = []
    for start in range(0, len(images), BATCH_SIZE):
        x = keras.ops.convert_to_tensor(images[start : start + BATCH_SIZE])
        forward = network.forward_pass(x, labels[start : start + BATCH_SIZE])
        gradient = forward.input_gradients(gbr.ForwardPass.losses)[0]
        x = keras.ops.clip(x + epsilon * keras.ops.sign(gradient), 0.0, 1.0)
        moved.append(keras.ops.convert_to_numpy(x))
    return np.concatenate(moved)
