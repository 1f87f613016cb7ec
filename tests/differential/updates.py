"""One update of many models under the backend in use; started by test_backends.py.

    KERAS_BACKEND=jax PYTHONPATH=tests python tests/differential/updates.py update FOLDER

`update` trains each model on one batch, from weights that are the same everywhere, and writes those
before and after. `save` saves one model after a step. `resume` loads the models that the backends
have saved and trains each on.
"""

import pathlib
import sys

import keras
import numpy as np
from keras import layers

import keras_gbr as gbr
from support.networks import use_float64

SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
PENALTIES = {
    "Jacobian": lambda: gbr.Jacobian(0.1, seed=3),
    "Jacobian, two projections": lambda: gbr.Jacobian(0.1, 2, seed=2**40),
    "Jacobian, exact": lambda: gbr.Jacobian(SCHEDULE, None),
    "Jacobian, probabilities": lambda: gbr.Jacobian(0.5, None, "probabilities"),
    "Jacobian, inside": lambda: gbr.Jacobian(0.1, seed=3, at="inner"),
    "InputGradient": lambda: gbr.InputGradient(0.5),
    "InputGradient, norm 1": lambda: gbr.InputGradient(0.1, norm=1, target=1.0),
    "InputGradient, norm inf": lambda: gbr.InputGradient(2.0, norm="inf"),
    "InputGradient, probability": lambda: gbr.InputGradient(0.5, of="label_probability"),
    "InputGradient, differences": lambda: gbr.InputGradient(
        0.5, method="finite_difference", step=0.1
    ),
    "InputGradient, fraction": lambda: gbr.InputGradient(0.5, fraction=0.5, interval=2),
    "ParameterGradient": lambda: gbr.ParameterGradient(0.1),
    "Adversarial": lambda: gbr.Adversarial(0.5, 0.1),
    "Adversarial, norm 2": lambda: gbr.Adversarial(0.5, 0.1, norm=2, data_range=(-2, 2)),
    "Adversarial, norm 1": lambda: gbr.Adversarial(0.5, 0.1, norm=1, at="inner"),
    "Adversarial, gradient": lambda: gbr.Adversarial(0.5, 0.1, norm=None),
}
WRAPPERS = {
    "ENC": lambda layer: gbr.ENC(layer, 2.0, learnable_alpha=True),
    "ENC, whole kernel": lambda layer: gbr.ENC(layer, per_filter=False, center=False),
    "ENCConv": gbr.ENCConv,
    "WeightNorm": gbr.WeightNorm,
    "WeightStandardization": gbr.WeightStandardization,
    "Regularized": lambda layer: gbr.Regularized(layer, gbr.Spectral(0.1)),
}
REGULARIZERS = {
    "Spectral": lambda: gbr.Spectral(0.1),
    "Spectral, power": lambda: gbr.Spectral(0.1, method="power", num_iterations=3),
    "Spectral, convolution": lambda: gbr.Spectral(0.1, operator="convolution"),
    "WEISSI": lambda: gbr.WEISSI(0.1, 0.01),
    "ShiftedL2": lambda: gbr.ShiftedL2(0.1),
    "Sum": lambda: gbr.Spectral(0.1) + gbr.ShiftedL2(0.1),
}
CONSTRAINTS = {
    "EqualNorm": lambda: gbr.EqualNorm(2.0),
    "EqualNorm, whole kernel": lambda: gbr.EqualNorm(per_filter=False, center=False),
}
# Wrappers are trained with a penalty: the second derivatives of their maps count, too.
CASES = {
    **{name: {"penalty": make} for name, make in PENALTIES.items()},
    **{
        name: {"wrap": make, "penalty": PENALTIES[penalty]}
        for penalty in ("InputGradient", "ParameterGradient")
        for name, make in ((f"{name}, {penalty}", make) for name, make in WRAPPERS.items())
    },
    **{name: {"regularizer": make} for name, make in REGULARIZERS.items()},
    **{name: {"constraint": make} for name, make in CONSTRAINTS.items()},
}


def network(penalty=None, wrap=lambda layer: layer, regularizer=None, constraint=None):
    """A smooth convolutional network with the parts of a case, compiled."""
    inputs = keras.Input((6, 6, 2))
    convolution = layers.Conv2D(
        4,
        3,
        kernel_regularizer=regularizer and regularizer(),
        kernel_constraint=constraint and constraint(),
    )
    x = layers.BatchNormalization()(wrap(convolution)(inputs))
    x = layers.Activation("tanh", name="inner")(x)
    x = wrap(layers.Conv2D(3, 2))(x)
    model = gbr.GBRModel(inputs, layers.Dense(3)(layers.Flatten()(x)))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, penalties=[penalty()] if penalty else None)
    rng = np.random.default_rng(7)
    # Around 1 where weights start at 1, such as scales, and around 0 where backends draw.
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
        PENALTIES["InputGradient"], WRAPPERS["ENC"], REGULARIZERS["Sum"], CONSTRAINTS["EqualNorm"]
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
    action, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    results = {"update": update, "save": save, "resume": resume}[action](folder)
    np.savez(folder / f"{keras.backend.backend()}-{action}.npz", **results)
