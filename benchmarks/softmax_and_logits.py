"""Compares training with probabilities and training with logits as the outputs of a network.

    python benchmarks/softmax_and_logits.py                  # about five minutes on two cores
    KERAS_BACKEND=jax python benchmarks/softmax_and_logits.py --seeds 1

On scikit-learn's digits, with `InputGradient`, from the same weights and batches: a softmax or
sigmoid as the last activation and the loss by its name, and no activation and the loss with
`from_logits=True`. A third column trains the former without the penalty. The gradient norm is the
mean over test images of the squared norm of the gradient of the loss by the pixels. It comes from
central differences of the compiled loss, without any code of keras_gbr.
"""

import argparse
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_gbr as gbr

LOSSES = keras.losses
# Loss by name, last activation, units, and the same loss of logits.
CASES = [
    ("sparse_categorical_crossentropy", "softmax", 10, LOSSES.SparseCategoricalCrossentropy),
    ("categorical_crossentropy", "softmax", 10, LOSSES.CategoricalCrossentropy),
    ("categorical_focal_crossentropy", "softmax", 10, LOSSES.CategoricalFocalCrossentropy),
    ("binary_crossentropy", "sigmoid", 1, LOSSES.BinaryCrossentropy),
    ("binary_crossentropy", "sigmoid", 10, LOSSES.BinaryCrossentropy),
    ("binary_focal_crossentropy", "sigmoid", 10, LOSSES.BinaryFocalCrossentropy),
]
HEADS = ("probabilities", "logits", "no penalty")


def digits(name, units):
    """Training and test images and labels: classes, one-hot, or whether the digit is odd."""
    images, classes = load_digits(return_X_y=True)
    images = images.astype("float32") / 16
    order = np.random.RandomState(0).permutation(len(images))
    images, classes = images[order], classes[order]
    if units == 1:
        labels = (classes % 2).astype("float32")[:, None]
    else:
        labels = classes if name.startswith("sparse") else np.eye(10, dtype="float32")[classes]
    return (images[:897], labels[:897]), (images[897:], labels[897:])


def trained(case, head, weight, epochs, seed):
    """A network, trained with this head."""
    name, activation, units, of_logits = case
    keras.utils.set_random_seed(seed)
    has_logits = head == "logits"
    x = inputs = keras.Input((64,))
    for _ in range(2):
        x = keras.layers.Dense(64, activation="tanh")(x)
    outputs = keras.layers.Dense(units, activation=None if has_logits else activation)(x)
    model = gbr.GBRModel(inputs, outputs)
    penalties = [] if head == "no penalty" else [gbr.InputGradient(weight)]
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)
    loss = of_logits(from_logits=True) if has_logits else name
    model.compile(optimizer, loss, penalties=penalties)
    train, _ = digits(name, units)
    keras.utils.set_random_seed(seed)
    model.fit(*train, batch_size=69, epochs=epochs, verbose=0)
    return model


def accuracy(model, x, y):
    """The share of images, in percent, whose largest output (or its side of 1/2) is right."""
    outputs = model.predict(x, verbose=0, batch_size=len(x))
    if outputs.shape[1] == 1:
        middle = 0.5 if "sigmoid" in str(model.layers[-1].activation) else 0.0
        return 100 * float(np.mean((outputs > middle) == (y > 0.5)))
    labels = y if y.ndim == 1 else y.argmax(1)
    return 100 * float(np.mean(outputs.argmax(1) == labels))


def squared_gradient_norm(model, x, y, step=1e-2):
    """The mean of the squared norms of the gradients of the loss by the pixels."""
    loss = keras.losses.get(model.loss)
    if isinstance(loss, keras.losses.Loss):
        loss.reduction = None

    def losses(x):
        values = loss(y, keras.ops.convert_to_tensor(model.predict_on_batch(x)))
        return np.asarray(keras.ops.convert_to_numpy(values), "float64")

    total = 0.0
    for pixel in range(x.shape[1]):
        moved = step * np.eye(x.shape[1], dtype="float32")[pixel]
        total += np.mean(((losses(x + moved) - losses(x - moved)) / (2 * step)) ** 2)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--weight", type=float, default=0.1)
    options = parser.parse_args()
    settings = f"{options.seeds} seeds, {options.epochs} epochs, InputGradient({options.weight})"
    print(f"{keras.backend.backend()}, {settings}; test accuracy in %, squared gradient norm")
    print("| loss, units | " + " | ".join(HEADS) + " |")
    print("| --- " * 4 + "|")
    for case in CASES:
        _, test = digits(case[0], case[2])
        cells = []
        for head in HEADS:
            models = [
                trained(case, head, options.weight, options.epochs, seed)
                for seed in range(options.seeds)
            ]
            found = [(accuracy(m, *test), squared_gradient_norm(m, *test)) for m in models]
            cells.append(" / ".join(_spread(column) for column in zip(*found, strict=True)))
        print(f"| {case[0]}, {case[2]} | " + " | ".join(cells) + " |", flush=True)


def _spread(values):
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4g} ±{deviation:.2g}"


if __name__ == "__main__":
    main()
