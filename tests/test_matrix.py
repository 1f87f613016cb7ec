"""Every public class over every kind of layer, in every precision and way of running.

For each: the value and the gradients agree between eager, graph and XLA, and with those in
double precision; and a saved model gives the same outputs and losses when loaded.
"""

import functools

import keras
import numpy as np
import pytest
from calls import (
    BACKEND,
    MODES,
    USUAL,
    assert_close,
    assert_equal,
    differentiated,
    number,
    to_numpy,
)
from keras import layers, ops
from kinds import ATTENTION, KINDS, accepts, arguments, example, model_around
from networks import allow_float64, use_float64

import keras_gbr as gbr

OWN = "a layer of one's own"  # Its constructor takes no regularizer and no constraint.
WRAPPERS = {
    "ENC": lambda layer: gbr.ENC(layer, 2.0, learnable_alpha=True),
    "ENCConv": gbr.ENCConv,
    "ENCDense": lambda layer: gbr.ENCDense(layer, center=False),
    "WeightNorm": gbr.WeightNorm,
    "WeightStandardization": gbr.WeightStandardization,
    "Regularized": lambda layer: gbr.Regularized(layer, gbr.Spectral(0.1)),
}
REGULARIZERS = {
    "Spectral": lambda axes: gbr.Spectral(0.1, filter_axis=axes),
    "WEISSI": lambda axes: gbr.WEISSI(0.1, 0.01),
    "ShiftedL2": lambda axes: gbr.ShiftedL2(0.1, filter_axis=axes),
    "Sum": lambda axes: gbr.ShiftedL2(0.1, filter_axis=axes) + keras.regularizers.L1(0.01),
}
CONSTRAINTS = {"EqualNorm": lambda axes: gbr.EqualNorm(2.0, filter_axis=axes)}
PENALTIES = {
    "Jacobian": (lambda at: gbr.Jacobian(0.1, num_projections=None, at=at), "GBRModel"),
    "InputGradient": (lambda at: gbr.InputGradient(0.1, at=at), "GBRMixin"),
    "ParameterGradient": (lambda at: gbr.ParameterGradient(0.1), "GBRModel"),
    # Signs of numbers near 0 would not agree between precisions.
    "Adversarial": (lambda at: gbr.Adversarial(0.1, 0.1, norm=2, at=at), "GBRMixin"),
}


@keras.saving.register_keras_serializable("tests")
class Mixed(gbr.GBRMixin, keras.Model):
    """A functional model with the mixin."""


MODELS = {"GBRModel": gbr.GBRModel, "GBRMixin": Mixed}
PARTS = [*WRAPPERS, *REGULARIZERS, *CONSTRAINTS, *PENALTIES]


def combinations():
    """Every class with every kind of layer that it is made for."""
    for name in PARTS:
        for kind in KINDS:
            by_argument = name in REGULARIZERS or name in CONSTRAINTS
            if accepts(getattr(gbr, name), kind) and not (by_argument and kind == OWN):
                yield name, kind


def build(name, kind):
    """A compiled model of one layer of the kind, with the class in it."""
    keras.utils.set_random_seed(4)
    extra = {}
    if name in REGULARIZERS:
        extra = arguments(kind, "regularizer", REGULARIZERS[name])
    if name in CONSTRAINTS:
        extra = arguments(kind, "constraint", CONSTRAINTS[name])
    layer = KINDS[kind][0](**extra)
    layer = WRAPPERS[name](layer) if name in WRAPPERS else layer
    penalty, model_class = PENALTIES.get(name, (None, "GBRModel"))
    model = model_around(kind, layer)
    outputs = model.output
    if name == "Jacobian":  # Exact, hence of one output.
        outputs = ops.mean(layers.Flatten()(outputs), axis=1, keepdims=True)
    model = MODELS[model_class](model.input, outputs)
    # Token ids have no gradient: there it is taken behind the layer.
    at = layer.name if kind == "Embedding" else None
    model.compile("sgd", "mse", penalties=[penalty(at)] if penalty else None)
    model.optimizer.build(model.trainable_variables)
    # Initial kernels of cells are orthogonal: none of their singular values is the largest.
    rng = np.random.default_rng(5)
    model.set_weights([w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def in_floatx(tensor):
    """A tensor in the precision that sums are to be taken in."""
    return ops.cast(tensor, keras.config.floatx())


def of_model(model, x, y):
    """The loss of a batch with all that is added to it, and the outputs."""
    forward = model.forward_pass(x, y, training=True)
    loss = ops.mean(ops.square(in_floatx(forward.y_pred) - y))
    return model.penalized_loss(loss + sum(model.losses), forward), [forward.y_pred]


def of_variables(model, x, y):
    """The regularization and the projections, which have no part in the forward pass."""
    projected = [v.constraint(v) for v in model.trainable_variables if v.constraint]
    lengths = [ops.sum(ops.cos(p) * p) for p in projected]
    return sum([*model.losses, *lengths]), projected


def results(name, kind, mode, model):
    """What the class computes: a loss, its gradients and what it is made from."""
    function = of_variables if name in (*REGULARIZERS, *CONSTRAINTS) else of_model
    x = example(kind)
    shape = model(x).shape
    y = np.cos(np.arange(np.prod(shape))).reshape(shape)

    def loss_and_parts(x, y):
        loss, parts = function(model, x, y)
        return in_floatx(loss), [in_floatx(part) for part in parts]

    call = differentiated(loss_and_parts, model.trainable_variables, mode)
    loss, parts, gradients = call(x, y.astype(keras.config.floatx()))
    return [value.astype("float64") for value in (loss, *parts, *gradients)]


@functools.cache
def reference(name, kind):
    """The results in double precision."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    weights = build(name, kind).get_weights()
    use_float64()
    try:
        model = build(name, kind)
        model.set_weights(weights)
        return results(name, kind, USUAL, model)
    finally:
        allow_float64(False)
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def deviation(actual, expected):
    """The length of the difference relative to that of what is expected, over all results."""
    # Where 0 is expected, as of the bias of keys, roundings of the others remain.
    lengths = [np.linalg.norm(e) for e in expected]
    lengths = [length + 0.05 * max(1.0, *lengths) for length in lengths]
    return max(
        np.linalg.norm(a - e) / length
        for a, e, length in zip(actual, expected, lengths, strict=True)
    )


# Operation by operation, JAX compiles each alone, for every shape anew.
WAYS = [USUAL] if BACKEND == "jax" else MODES
# Roundings of 6e-8, 5e-4 and 4e-3; the largest of those of a product, its sum and a square.
TOLERANCES = {"float32": 3e-4, "mixed_float16": 0.03, "mixed_bfloat16": 0.15}


def cases():
    """Every combination in every precision; under JAX, which compiles long, in one by turns."""
    for turn, (name, kind) in enumerate(combinations()):
        policies = list(TOLERANCES)
        if BACKEND == "jax":
            if kind in ATTENTION:  # which it has not in float16 on CPUs
                policies.remove("mixed_float16")
            policies = [policies[turn % len(policies)]]
        yield from ((name, kind, policy) for policy in policies)


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "kind", "policy"), list(cases()))
def test_every_class_over_every_layer(name, kind, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = build(name, kind)
    for mode in WAYS:
        actual = results(name, kind, mode, model)
        assert deviation(actual, reference(name, kind)) < TOLERANCES[policy], mode
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = example(kind)
    assert_equal(loaded(x), model(x))
    assert [number(loss) for loss in loaded.losses] == [number(loss) for loss in model.losses]
    assert type(loaded) is type(model)
    assert [p.get_config() for p in loaded.penalties] == [p.get_config() for p in model.penalties]


def test_every_public_class_is_in_the_table():
    classes = {name for name in gbr.__all__ if isinstance(getattr(gbr, name), type)}
    others = {"Reparametrized", "Penalty", "GBRMonitor", "LayerKernels"}
    assert classes - others == {*PARTS, *MODELS}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Embedding"])
def test_the_monitor_watches_every_kernel(kind):
    model = build("WeightStandardization", kind)
    x = example(kind)
    monitor = gbr.GBRMonitor(x, num_projections=1)
    history = model.fit(x, np.zeros(model(x).shape), verbose=0, callbacks=[monitor]).history
    (wrapper,) = [layer for layer in model.layers if isinstance(layer, gbr.Reparametrized)]
    norms = [np.linalg.norm(to_numpy(kernel)) for kernel in wrapper.kernels.values()]
    watched = [history[name][0] for name in history if name.startswith("kernel_norm/")]
    assert_close(watched, norms, rtol=1e-5)
    assert history["gbr"][0] > 0
