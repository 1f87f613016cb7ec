"""Every loss of Keras in NumPy, written from the mathematics, and the penalties of a model on it.

Everything takes complex numbers: the derivative of an analytic function along a direction is the
imaginary part at a tiny imaginary step, to the last digit. So penalties, which are made of first
derivatives, are exact, and their gradients need only one difference. Functions with a kink decide
by the real part.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from support.calls import BACKEND

TINY = 1e-30
STEP = 1e-5
# The samples, features and classes of every batch here.
SAMPLES, FEATURES, HIDDEN, CLASSES = 4, 3, 4, 3


def absolute(v):
    return v * np.sign(v.real)


def positive_part(v):
    return np.where(v.real > 0, v, 0.0)


def clipped(v, low, high):
    return np.where(v.real < low, low, np.where(v.real > high, high, v))


def log_softmax(z):
    shifted = z - z.real.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_sigmoid(z):
    return -positive_part(-z) - np.log1p(np.exp(-absolute(z)))


# Keras' crossentropies and its divergence clip probabilities at this; crossentropies also at 1
# minus this. Under TensorFlow they take the logits if the outputs come from a softmax or a sigmoid,
# whichever of the two.
SMALLEST = 1e-7
LOGITS_BEHIND = BACKEND == "tensorflow"


@dataclass(frozen=True)
class Outputs:
    """The outputs of a model before (`z`) and after its last activation.

    Attributes:
        z: Array `(..., units)`.
        head: The activation.
        behind: Whether crossentropies find the logits behind the outputs.
    """

    z: np.ndarray
    head: str
    behind: bool = LOGITS_BEHIND

    @property
    def u(self):
        if self.head == "softmax":
            return np.exp(log_softmax(self.z))
        return np.exp(log_sigmoid(self.z)) if self.head == "sigmoid" else self.z

    def of_classes(self, from_logits):
        """The logarithms of the probabilities of classes that exclude each other."""
        if from_logits or (self.behind and self.head != "linear"):
            return log_softmax(self.z)
        return np.log(clipped(self.u / self.u.sum(axis=-1, keepdims=True), SMALLEST, 1 - SMALLEST))

    def of_yes_and_no(self, from_logits):
        """The logarithms of the probabilities of yes and no, for each output alone."""
        if from_logits or (self.behind and self.head != "linear"):
            return log_sigmoid(self.z), log_sigmoid(-self.z)
        p = clipped(self.u, SMALLEST, 1 - SMALLEST)
        return np.log(p), np.log(1 - p)


def one_hot(y):
    return np.eye(CLASSES)[y]


def categorical_crossentropy(y, out, from_logits=False, label_smoothing=0.0):
    y = (1 - label_smoothing) * y + label_smoothing / y.shape[-1]
    return -(y * out.of_classes(from_logits)).sum(-1)


def sparse_categorical_crossentropy(y, out, from_logits=False, ignore_class=None):
    kept = np.ones(y.shape, bool) if ignore_class is None else y != ignore_class
    return kept * categorical_crossentropy(one_hot(np.where(kept, y, 0)), out, from_logits)


def categorical_focal_crossentropy(
    y, out, from_logits=False, alpha=0.25, gamma=2.0, label_smoothing=0.0
):
    # This one clips its probabilities on every backend.
    y = (1 - label_smoothing) * y + label_smoothing / y.shape[-1]
    head = "softmax" if from_logits else out.head
    log_p = Outputs(out.z, head, behind=False).of_classes(from_logits=False)
    return -(alpha * (1 - np.exp(log_p)) ** gamma * y * log_p).sum(-1)


def binary_crossentropy(y, out, from_logits=False, label_smoothing=0.0):
    y = (1 - label_smoothing) * y + label_smoothing / 2
    yes, no = out.of_yes_and_no(from_logits)
    return -(y * yes + (1 - y) * no).mean(-1)


def binary_focal_crossentropy(
    y, out, from_logits=False, gamma=2.0, alpha=0.25, apply_class_balancing=False
):
    # Even from logits the loss is made of probabilities, and may look behind them.
    head = "sigmoid" if from_logits else out.head
    out = Outputs(out.z, head, out.behind)
    yes, no = out.of_yes_and_no(from_logits=False)
    p = out.u
    factor = (1 - (y * p + (1 - y) * (1 - p))) ** gamma
    if apply_class_balancing:
        factor = factor * (y * alpha + (1 - y) * (1 - alpha))
    return -(factor * (y * yes + (1 - y) * no)).mean(-1)


def categorical_generalized_cross_entropy(y, out, q=0.5):
    return (1 - (out.u * one_hot(y)).sum(-1) ** q) / q


def kl_divergence(y, out):
    return (y * np.log(y / clipped(out.u, SMALLEST, 1.0))).sum(-1)


def poisson(y, out):
    return (out.u - y * np.log(out.u + SMALLEST)).mean(-1)


def dice(y, out):
    return 1 - 2 * (y * out.u).sum(-1) / (y + out.u).sum(-1)


def tversky(y, out, alpha=0.5, beta=0.5):
    both = (y * out.u).sum(-1)
    missed, wrong = ((1 - out.u) * y).sum(-1), (out.u * (1 - y)).sum(-1)
    return 1 - both / (both + alpha * missed + beta * wrong)


def mean_squared_error(y, out):
    return ((y - out.u) ** 2).mean(-1)


def mean_absolute_error(y, out):
    return absolute(y - out.u).mean(-1)


def mean_absolute_percentage_error(y, out):
    return 100 * absolute((y - out.u) / y).mean(-1)


def mean_squared_logarithmic_error(y, out):
    return (np.log((1 + y) / (1 + out.u)) ** 2).mean(-1)


def huber(y, out, delta=1.0):
    error = absolute(y - out.u)
    return np.where(
        error.real <= delta, error**2 / 2, delta * error - delta**2 / 2
    ).mean(-1)  # fmt: skip


def log_cosh(y, out):
    return np.log(np.cosh(out.u - y)).mean(-1)


def cosine_similarity(y, out):
    lengths = np.sqrt((y**2).sum(-1)), np.sqrt((out.u**2).sum(-1))
    return -(y * out.u).sum(-1) / (lengths[0] * lengths[1])


def hinge(y, out):
    return positive_part(1 - (2 * y - 1) * out.u).mean(-1)


def squared_hinge(y, out):
    return (positive_part(1 - (2 * y - 1) * out.u) ** 2).mean(-1)


def categorical_hinge(y, out):
    return positive_part(1 + np.max((1 - y) * out.u, axis=-1) - (y * out.u).sum(-1))


@dataclass(frozen=True)
class Reference:
    """One loss of Keras.

    Attributes:
        value: `(y, Outputs, **config)` -> the loss of each sample, and of each of its pixels.
        labels: Which of `LABELS` it takes.
        config: What its constructor needs.
        variants: Configurations to try besides.
        positive: Whether the outputs must be in (0, 1), also where they are linear.
    """

    value: Callable
    labels: str
    config: dict = field(default_factory=dict)
    variants: tuple[dict, ...] = ()
    positive: bool = False

    @property
    def crossentropy(self):
        """Whether it has an argument `from_logits`."""
        return self.value.__code__.co_varnames[2:3] == ("from_logits",)


AXIS = {"axis": -1}  # the default is one number for the batch, which is refused
LOSSES = {
    "BinaryCrossentropy": Reference(
        binary_crossentropy, "binary", variants=({"label_smoothing": 0.2},)
    ),
    "BinaryFocalCrossentropy": Reference(
        binary_focal_crossentropy,
        "binary",
        variants=({"gamma": 3.0, "alpha": 0.4, "apply_class_balancing": True},),
    ),
    "CategoricalCrossentropy": Reference(
        categorical_crossentropy, "one-hot", variants=({"label_smoothing": 0.2},)
    ),
    "CategoricalFocalCrossentropy": Reference(
        categorical_focal_crossentropy, "one-hot", variants=({"label_smoothing": 0.2},)
    ),
    "SparseCategoricalCrossentropy": Reference(sparse_categorical_crossentropy, "sparse"),
    "CategoricalGeneralizedCrossEntropy": Reference(
        categorical_generalized_cross_entropy, "sparse", {"q": 0.5}, positive=True
    ),
    "CategoricalHinge": Reference(categorical_hinge, "one-hot"),
    "CosineSimilarity": Reference(cosine_similarity, "distribution"),
    "Dice": Reference(dice, "one-hot", AXIS, positive=True),
    "Hinge": Reference(hinge, "binary"),
    "Huber": Reference(huber, "distribution", variants=({"delta": 0.3},)),
    "KLDivergence": Reference(kl_divergence, "distribution", positive=True),
    "LogCosh": Reference(log_cosh, "distribution"),
    "MeanAbsoluteError": Reference(mean_absolute_error, "distribution"),
    "MeanAbsolutePercentageError": Reference(mean_absolute_percentage_error, "distribution"),
    "MeanSquaredError": Reference(mean_squared_error, "distribution"),
    "MeanSquaredLogarithmicError": Reference(
        mean_squared_logarithmic_error, "distribution", positive=True
    ),
    "Poisson": Reference(poisson, "distribution", positive=True),
    "SquaredHinge": Reference(squared_hinge, "binary"),
    "Tversky": Reference(
        tversky, "one-hot", AXIS, variants=({"alpha": 0.3, "beta": 0.7},), positive=True
    ),
}
# Losses that do not fit an output `(batch_size, classes)`; they have tests of their own.
OTHERS = {"CTC", "Circle"}
# The function of a class, if its name is not the lower case of the class with underscores.
FUNCTIONS = {
    "CTC": "ctc",
    "KLDivergence": "kl_divergence",
    "CategoricalGeneralizedCrossEntropy": "categorical_generalized_cross_entropy",
}


def function_name(cls):
    """The name of the loss function of a loss class."""
    if cls in FUNCTIONS:
        return FUNCTIONS[cls]
    return "".join("_" + c.lower() if c.isupper() else c for c in cls).lstrip("_")


def labels(kind, shape=(SAMPLES,), seed=0):
    """Labels: classes, those one-hot, yes or no for each class, or a distribution over them."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, shape)
    classes.flat[:2] = 0, 1
    if kind in ("sparse", "one-hot"):
        return classes if kind == "sparse" else one_hot(classes)
    if kind == "binary":
        return rng.integers(0, 2, (*shape, CLASSES)).astype(float)
    return rng.dirichlet(np.full(CLASSES, 3.0), shape)


def inputs(shape=(), seed=0):
    return np.random.default_rng(seed).standard_normal((SAMPLES, *shape, FEATURES))


def weights(units=(CLASSES,), positive=False, scale=1.0, seed=0):
    """The weights of a hidden layer and of heads; `positive`: linear outputs are in (0, 1)."""
    rng = np.random.default_rng(seed)
    kernels = [rng.standard_normal((FEATURES, HIDDEN)), 0.3 * rng.standard_normal(HIDDEN)]
    for size in units:
        kernel, bias = scale * rng.standard_normal((HIDDEN, size)), rng.standard_normal(size)
        kernels += [0.1 * kernel, 0.5 + 0.02 * bias] if positive else [kernel, 0.3 * bias]
    return kernels


class Net:
    """A tanh layer and linear heads as a function of all weights in one vector.

    Inputs `(samples, ..., features)`: the axes between are positions. Each is computed on its own,
    and their losses are averaged. Weight vectors and inputs may have further axes in front.

    Attributes:
        theta: The weights as one vector.
        value: `(list of the heads' outputs before the activation)` -> losses of the samples.
    """

    def __init__(self, arrays, value):
        self.shapes = [array.shape for array in arrays]
        self.theta = np.concatenate([np.ravel(array) for array in arrays]).astype("float64")
        self.value = value

    def heads(self, theta, x):
        """The outputs of the heads, `(..., samples, positions, units)`."""
        parts, offset = [], 0
        for shape in self.shapes:
            size = int(np.prod(shape))
            parts.append(theta[..., offset : offset + size].reshape(*theta.shape[:-1], 1, *shape))
            offset += size
        biased = [part[..., None, :] for part in parts[1::2]]
        hidden = np.tanh(x @ parts[0] + biased[0])
        return [hidden @ w + b for w, b in zip(parts[2::2], biased[1:], strict=True)]

    def losses(self, theta, x):
        """The loss of each sample, `(..., samples)`."""
        values = self.value(self.heads(theta, x))
        return values.mean(-1)

    def input_gradients(self, theta, x):
        """The gradient of the sum of the losses by the inputs, an axis of directions first."""
        flat = x.reshape(SAMPLES, -1)
        moved = x + 1j * TINY * np.eye(flat.shape[1]).reshape(-1, 1, *x.shape[1:])
        theta = theta.reshape(*theta.shape[:-1], 1, theta.shape[-1])
        return self.losses(theta, moved).imag / TINY

    def gradient(self, function, theta):
        """The gradient of an analytic function of weight vectors."""
        steps = 1j * TINY * np.eye(theta.shape[-1])
        return function(theta[..., None, :] + steps).imag / TINY

    def differences(self, function, theta):
        """The same for a function of real weight vectors."""
        one, two = (n * STEP * np.eye(theta.shape[-1]) for n in (1, 2))
        near, far = (function(theta + s) - function(theta - s) for s in (one, two))
        return (8 * near - far) / (12 * STEP)  # off by the fourth power of the step


EPSILON = 0.3


def penalties(net, x, sample_weight=None):
    """The loss and the three penalties of a net: pairs of value and gradient by the weights.

    Args:
        net: A `Net`.
        x: The inputs `(samples, positions, features)`.
        sample_weight: Weights of the samples.

    Returns:
        A dictionary of pairs.
    """
    counted = np.ones(SAMPLES) if sample_weight is None else np.asarray(sample_weight)
    slopes = np.moveaxis(net.input_gradients(net.theta, x), 0, 1)
    lengths = np.sqrt((slopes**2).sum(1, keepdims=True))
    # A sample without a gradient, of an ignored class, is not moved.
    steps = EPSILON * slopes / np.where(lengths > 0, lengths, 1.0)

    def loss_at(points):
        return lambda theta: (counted * net.losses(theta, points)).mean(-1)

    def input_gradient(theta):
        squares = net.input_gradients(theta, x) ** 2
        return (counted * squares.sum(-2)).mean(-1)

    def parameter_gradient(theta):
        return (net.gradient(loss_at(x), theta) ** 2).sum(-1)

    analytic = {"loss": loss_at(x), "adversarial": loss_at(x + steps.reshape(x.shape))}
    differenced = {"input_gradient": input_gradient, "parameter_gradient": parameter_gradient}
    found = {k: (f(net.theta), net.gradient(f, net.theta)) for k, f in analytic.items()}
    return found | {
        k: (f(net.theta), net.differences(f, net.theta)) for k, f in differenced.items()
    }
