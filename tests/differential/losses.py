"""Every loss of Keras, the outputs that it is for and the labels that fit them."""

import inspect
from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Use:
    """One way to use a loss.

    Attributes:
        head: What the outputs are, a key of `HEADS`.
        labels: What the labels are, a key of `LABELS`.
        arguments: Those of the class, as text; without any the loss may be given by its name.
            `AXES` in it stands for all axes but that of the samples.
        couples: Whether the loss is one number for the batch, or the loss of a sample depends on
            other samples. Penalties on the loss of a sample do not go with it.
        steps: Whether the outputs must be a series.
        scale: The size that derivatives of the loss have.
        units: The least number of units.
    """

    head: str
    labels: str
    arguments: str = ""
    couples: bool = False
    steps: bool = False
    scale: float = 1.0
    units: int = 1


# The last activation, by name. A softmax has three units; the others may have one.
HEADS = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "logits": None,
    "scores": None,
    "positive": "softplus",
    "signed": "tanh",
}
# For a batch of `shape`, the axes of samples and places, and some number of `units`.
LABELS = {
    "classes": "rng.integers(0, {units}, {shape})",
    "column": "rng.integers(0, {units}, ({batch}, 1))",
    "one_hot": "np.eye({units})[rng.integers(0, {units}, {shape})]",
    "shares": "rng.dirichlet(np.ones({units}), {shape})",
    "bits": "rng.integers(0, 2, ({inside}, {units}))",
    "signs": "2 * rng.integers(0, 2, ({inside}, {units})) - 1",
    "real": "rng.standard_normal(({inside}, {units}))",
    "positive": "rng.uniform(0.5, 2, ({inside}, {units}))",
    "counts": "rng.poisson(2, ({inside}, {units}))",
    "sequences": "rng.integers(1, {units}, ({batch}, 2))",
    "pairs": "rng.permutation({batch}) % 2",
}
LOGITS = "from_logits=True"
SMOOTH = "label_smoothing=0.1"
BINARY = (
    Use("sigmoid", "bits"),
    Use("logits", "bits", LOGITS),
    Use("sigmoid", "bits", SMOOTH),
    Use("logits", "bits", f"{LOGITS}, {SMOOTH}"),
)
CATEGORICAL = (
    Use("softmax", "one_hot"),
    Use("logits", "one_hot", LOGITS),
    Use("softmax", "one_hot", SMOOTH),
    Use("softmax", "shares"),
    Use("logits", "one_hot", f"{LOGITS}, {SMOOTH}"),
)
REAL = (Use("scores", "real"), Use("softmax", "one_hot"), Use("sigmoid", "bits"))
HINGE = (Use("signed", "signs"), Use("scores", "signs"), Use("scores", "bits"))
OVERLAP = (
    Use("softmax", "one_hot", "axis=AXES"),
    Use("sigmoid", "bits", "axis=AXES"),
    Use("softmax", "one_hot", couples=True),
    Use("sigmoid", "bits", couples=True),
)
USES = {
    "BinaryCrossentropy": BINARY,
    "BinaryFocalCrossentropy": (*BINARY, Use("sigmoid", "bits", "apply_class_balancing=True")),
    "CategoricalCrossentropy": CATEGORICAL,
    "CategoricalFocalCrossentropy": CATEGORICAL,
    "CategoricalGeneralizedCrossEntropy": (
        Use("softmax", "classes"),
        Use("softmax", "classes", "q=0.7"),
    ),
    "CategoricalHinge": (Use("scores", "one_hot"), Use("softmax", "one_hot")),
    "Circle": (Use("scores", "pairs", "gamma=2.0", couples=True),),
    # The similarity of single numbers is a sign, whose gradient is zero except for rounding.
    "CosineSimilarity": (Use("scores", "real", units=3), Use("softmax", "one_hot")),
    "CTC": (Use("scores", "sequences", couples=True, steps=True),),
    "Dice": OVERLAP,
    "Hinge": HINGE,
    "Huber": (*REAL, Use("scores", "real", "delta=0.3")),
    "KLDivergence": (Use("softmax", "shares"), Use("softmax", "one_hot")),
    "LogCosh": REAL,
    "MeanAbsoluteError": REAL,
    "MeanAbsolutePercentageError": (Use("scores", "positive", scale=100.0),),
    "MeanSquaredError": (*REAL, Use("scores", "real", 'reduction="sum"')),
    "MeanSquaredLogarithmicError": (Use("positive", "positive"), Use("scores", "positive")),
    "Poisson": (Use("positive", "counts"),),
    "SparseCategoricalCrossentropy": (
        Use("softmax", "classes"),
        Use("logits", "classes", LOGITS),
        Use("softmax", "column"),
        Use("logits", "classes", f'{LOGITS}, reduction="sum"'),
        Use("softmax", "classes", "ignore_class=0"),
    ),
    "SquaredHinge": HINGE,
    "Tversky": OVERLAP,
}
# Custom losses, made from those of Keras.
OWN = {
    "crossentropy_and_dice": Use("softmax", "one_hot"),
    "two_crossentropies": Use("sigmoid", "bits"),
    "crossentropy_of_halves": Use("softmax", "one_hot"),
}
OWN_SOURCES = {
    "crossentropy_and_dice": """\
def crossentropy_and_dice(y_true, y_pred):
    dice = keras.losses.dice(y_true, y_pred, axis=-1)
    return keras.losses.categorical_crossentropy(y_true, y_pred) + dice
""",
    "two_crossentropies": """\
def two_crossentropies(y_true, y_pred):
    focal = keras.losses.binary_focal_crossentropy(y_true, y_pred)
    return keras.losses.binary_crossentropy(y_true, y_pred) + 0.5 * focal
""",
    "crossentropy_of_halves": """\
def crossentropy_of_halves(y_true, y_pred):
    return keras.losses.categorical_crossentropy(y_true, 0.5 * y_pred + 0.5 / 3)
""",
}


def losses_of_keras():
    """The names of the classes of losses, and of the functions, that Keras offers."""
    offered = {name: getattr(keras.losses, name) for name in dir(keras.losses) if name[0] != "_"}
    classes = {name for name, value in offered.items() if inspect.isclass(value)} - {"Loss"}
    functions = {name for name, value in offered.items() if inspect.isfunction(value)}
    return classes, functions - {"deserialize", "get", "serialize"}


def as_written(name):
    """How a program names a loss without arguments: by a string, if Keras has one for it."""
    function = getattr(keras.losses, name)().fn.__name__
    try:
        keras.losses.get(function)
    except ValueError:
        return f"keras.losses.{name}()"
    return f'"{function}"'
