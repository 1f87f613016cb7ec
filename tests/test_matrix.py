"""Every public class over every kind of layer, in each precision and way of running by turns.

For each: the value and the gradients agree between eager, graph and XLA, and with those in
double precision; and a saved model gives the same outputs and losses when loaded. `make test-all`
takes every combination in every precision and way.
"""

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_gbr as gbr
from support.calls import (
    BACKEND,
    MODES,
    USUAL,
    assert_close,
    assert_equal,
    differentiated,
    number,
    to_numpy,
)
from support.catalogue import (
    CLASSES,
    CONSTRAINTS,
    MODELS,
    PENALTIES,
    REGULARIZERS,
    WRAPPERS,
    by_turns,
    wrapped,
)
from support.kinds import ATTENTION, KINDS, accepts, arguments, example, model_around
from support.networks import allow_float64, use_float64

OWN = "a layer of one's own"  # Its constructor takes no regularizer and no constraint.
# The models that penalties are in, by turns.
MODEL_OF = dict(zip(PENALTIES, itertools.cycle(MODELS)))


@keras.saving.register_keras_serializable("tests")
class Mixed(gbr.GBRMixin, keras.Model):
    """A functional model with the mixin."""


MODEL_CLASSES = {"GBRModel": gbr.GBRModel, "GBRMixin": Mixed}


def combinations():
    """Every class with every kind of layer that it is made for."""
    for name in CLASSES:
        for kind in KINDS:
            by_argument = name in REGULARIZERS or name in CONSTRAINTS
            if accepts(getattr(gbr, name), kind) and not (by_argument and kind == OWN):
                yield name, kind


def build(name, kind, **settings):
    """A compiled model of one layer of the kind, with the class in it."""
    keras.utils.set_random_seed(4)
    extra = {}
    if name in REGULARIZERS:
        extra = arguments(kind, "regularizer", REGULARIZERS[name].along)
    if name in CONSTRAINTS:
        extra = arguments(kind, "constraint", CONSTRAINTS[name].along)
    layer = KINDS[kind][0](**extra)
    layer = wrapped(name, layer) if name in WRAPPERS else layer
    penalty = PENALTIES.get(name)
    model = model_around(kind, layer)
    outputs = model.output
    if penalty and penalty.single_output:
        outputs = ops.mean(layers.Flatten()(outputs), axis=1, keepdims=True)
    model = MODEL_CLASSES[MODEL_OF.get(name, "GBRModel")](model.input, outputs)
    # Token ids have no gradient, so it is taken at the output of the layer.
    at = layer.name if kind == "Embedding" else None
    model.compile("sgd", "mse", penalties=[penalty.smooth(at)] if penalty else None, **settings)
    model.optimizer.build(model.trainable_variables)
    # Initial kernels of cells are orthogonal: none of their singular values is the largest.
    rng = np.random.default_rng(5)
    model.set_weights([w + 0.1 * rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


def in_floatx(tensor):
    """A tensor in the precision for sums."""
    return ops.cast(tensor, keras.config.floatx())


def of_model(model, x, y):
    """The loss of a batch with everything that is added to it, and the outputs."""
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
    """The length of the difference relative to that of the expected, the largest of all results."""
    # Where 0 is expected, as for the bias of keys, the rounding of other terms remains.
    lengths = [np.linalg.norm(e) for e in expected]
    lengths = [length + 0.05 * max(1.0, *lengths) for length in lengths]
    return max(
        np.linalg.norm(a - e) / length
        for a, e, length in zip(actual, expected, lengths, strict=True)
    )


# Each case runs eagerly and is compiled in one way.
WAYS = [way for way in MODES if way != "eager"] or [USUAL]
# The types round by 6e-8, 5e-4 and 4e-3; products, their sums and squares add these up.
TOLERANCES = {"float32": 3e-4, "mixed_float16": 0.03, "mixed_bfloat16": 0.15}


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("name", "kind", "policy", "way"), by_turns(combinations(), TOLERANCES, WAYS)
)
def test_every_class_over_every_layer(name, kind, policy, way, tmp_path):
    if BACKEND == "jax" and kind in ATTENTION and policy == "mixed_float16":
        pytest.skip("JAX has no attention in float16 on CPUs")
    keras.config.set_dtype_policy(policy)
    model = build(name, kind)
    # Eagerly, JAX compiles each operation alone, and again for every shape.
    for mode in {way: None} if BACKEND == "jax" else {"eager": None, way: None}:
        actual = results(name, kind, mode, model)
        assert deviation(actual, reference(name, kind)) < TOLERANCES[policy], mode
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = example(kind)
    assert_equal(loaded(x), model(x))
    assert [number(loss) for loss in loaded.losses] == [number(loss) for loss in model.losses]
    assert type(loaded) is type(model)
    assert [p.get_config() for p in loaded.penalties] == [p.get_config() for p in model.penalties]


def test_every_class_and_every_layer_has_its_turn_in_every_precision_and_way():
    met = {}
    for case in by_turns(combinations(), TOLERANCES, WAYS):
        if not case.marks:
            name, kind, policy, way = case.values
            for part in (name, kind):
                met.setdefault(part, set()).update((policy, way))
    assert set(met) == {*CLASSES, *KINDS}
    everything = {*TOLERANCES, *WAYS}
    assert {part: everything - seen for part, seen in met.items() if seen != everything} == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Embedding"])
def test_the_monitor_watches_every_kernel(kind):
    model = build("WeightStandardization", kind, run_eagerly=BACKEND != "jax")
    x = example(kind)
    monitor = gbr.GBRMonitor(x, num_projections=1)
    history = model.fit(x, np.zeros(model(x).shape), verbose=0, callbacks=[monitor]).history
    (wrapper,) = [layer for layer in model.layers if isinstance(layer, gbr.Reparametrized)]
    norms = [np.linalg.norm(to_numpy(kernel)) for kernel in wrapper.kernels.values()]
    watched = [history[name][0] for name in history if name.startswith("kernel_norm/")]
    assert_close(watched, norms, rtol=1e-5)
    assert history["gbr"][0] > 0
