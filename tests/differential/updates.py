"""One update of many models under the backend in use; started by test_backends.py.

    KERAS_BACKEND=jax PYTHONPATH=tests python tests/differential/updates.py FOLDER

Reads one action per line, so that a backend starts once, and answers each with a line. `update`
trains each model on one batch, from weights that are the same everywhere, and writes those before
and after. `save` saves a model after a step. `resume` loads the models that the backends have saved
and trains each on.
"""

import pathlib
import sys

import keras
import numpy as np
from keras import layers

import keras_gbr as gbr
from support.catalogue import variants
from support.networks import use_float64

# Wrappers are trained with a penalty: the second derivatives of their maps count, too.
WITH_WRAPPERS = ("InputGradient, norm 2", "ParameterGradient, alone")
CASES = {
    **{
        name: {part: make}
        for part in ("penalty", "regularizer", "constraint")
        for name, make in variants(part).items()
    },
    **{
        f"{wrapper}, {penalty}": {"wrapper": make, "penalty": variants("penalty")[penalty]}
        for penalty in WITH_WRAPPERS
        for wrapper, make in variants("wrapper").items()
    },
}


def network(penalty=None, wrapper=lambda layer: layer, regularizer=None, constraint=None):
    """A smooth convolutional network with the parts of a case, compiled."""
    inputs = keras.Input((6, 6, 2))
    convolution = layers.Conv2D(
        4,
        3,
        kernel_regularizer=regularizer and regularizer(),
        kernel_constraint=constraint and constraint(),
    )
    x = layers.BatchNormalization()(wrapper(convolution)(inputs))
    x = layers.Activation("tanh", name="inner")(x)
    x = wrapper(layers.Conv2D(3, 2))(x)
    model = gbr.GBRModel(inputs, layers.Dense(3)(layers.Flatten()(x)))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # A graph without XLA, which test_matrix.py tests. JAX always compiles.
    compiled = "auto" if keras.backend.backend() == "jax" else False
    penalties = [penalty()] if penalty else None
    model.compile(optimizer, loss, penalties=penalties, jit_compile=compiled)
    rng = np.random.default_rng(7)
    # Around 1 for weights that start at 1, such as scales, and around 0 for all others.
    starts = [(1.0 if np.all(w == 1) else 0.0) for w in model.get_weights()]
    shapes = [w.shape for w in model.get_weights()]
    pairs = zip(starts, shapes, strict=True)
    model.set_weights([start + 0.3 * rng.standard_normal(shape) for start, shape in pairs])
    return model


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((8, 6, 6, 2)), rng.integers(0, 3, 8)


def update(folder):
    """The weights of every model before and after a step."""
    results = {}
    for name, case in CASES.items():
        model = network(**case)
        before = model.get_weights()
        model.train_on_batch(*batch())
        for index, pair in enumerate(zip(before, model.get_weights(), strict=True)):
            results[f"{name}|{index}"] = np.stack(pair)
    return results


def save(folder):
    """Saves a model with everything in it after a step."""
    model = network(
        variants("penalty")["InputGradient, norm 2"],
        variants("wrapper")["ENC, learnable"],
        variants("regularizer")["Sum, of two"],
        variants("constraint")["EqualNorm, default"],
    )
    model.train_on_batch(*batch())
    model.save(folder / f"{keras.backend.backend()}.keras")
    return {}


def resume(folder):
    """The weights of the saved models after another step."""
    results = {}
    for path in folder.glob("*.keras"):
        model = keras.models.load_model(path)
        model.train_on_batch(*batch(1))
        results |= {f"{path.stem}|{i}": weight for i, weight in enumerate(model.get_weights())}
    return results


if __name__ == "__main__":
    use_float64()
    folder = pathlib.Path(sys.argv[1])
    for line in sys.stdin:
        action = line.strip()
        results = {"update": update, "save": save, "resume": resume}[action](folder)
        np.savez(folder / f"{keras.backend.backend()}-{action}.npz", **results)
        print(f"done: {action}", flush=True)
