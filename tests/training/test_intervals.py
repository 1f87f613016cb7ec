"""Penalties in every k-th step and on a part of each batch."""

import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

import keras_gbr as gbr
from keras_gbr.training.compile_penalties import CompilePenalties
from keras_gbr.training.step_kinds import possible_kinds
from support.calls import BACKEND, LOOPS, NOT_FINITE, STEPS, number, to_numpy
from support.networks import (
    batch,
    check_gradient,
    conv_network,
    dense_network,
    logits_loss,
    use_float64,
    values,
)

pytestmark = pytest.mark.jax

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
else:
    import torch


@keras.saving.register_keras_serializable("tests")
class EveryKth(keras.optimizers.schedules.LearningRateSchedule):
    """`k` times a weight in every k-th step, 0 in the others."""

    def __init__(self, weight, interval):
        self.weight, self.interval = weight, interval

    def __call__(self, step):
        due = ops.equal(ops.cast(step, "int32") % self.interval, 0)
        return ops.cast(due, "float64") * self.weight * self.interval


def network(dropout=0.2):
    """Tokens and numbers, an embedding, dropout, batch normalisation, an output without a loss."""
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    numbers = keras.Input((5,), name="numbers")
    x = layers.Flatten()(layers.Embedding(6, 2, name="embedding")(tokens))
    x = layers.Dense(8, activation="tanh")(layers.Concatenate()([x, numbers]))
    x = layers.Dropout(dropout, seed=3)(layers.BatchNormalization()(x))
    extra = layers.Dense(2, use_bias=False, name="extra")(x)
    outputs = {"class": layers.Dense(3, name="class")(x), "extra": extra}
    return gbr.GBRModel({"tokens": tokens, "numbers": numbers}, outputs)


def data(samples=16):
    rng = np.random.default_rng(0)
    x = {"tokens": rng.integers(0, 6, (samples, 3)), "numbers": rng.standard_normal((samples, 5))}
    return x, {"class": rng.integers(0, 3, samples), "extra": np.zeros((samples, 2))}


def penalties(lazy):
    """Three kinds of step: with both, with the second alone, with neither."""

    def every(k, weight):
        return {"weight": weight, "interval": k} if lazy else {"weight": EveryKth(weight, k)}

    return [
        gbr.InputGradient(**every(4, 0.1), at="embedding"),
        gbr.Jacobian(**every(2, 0.02), num_projections=None, name="lazy_jacobian"),
        gbr.Adversarial(0.1, 0.05),
    ]


def trained(parts, dropout=0.2, epochs=2, **mode):
    use_float64()
    keras.utils.set_random_seed(1)
    model = network(dropout)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        {"class": logits_loss()},
        metrics={"class": "accuracy"},
        penalties=parts,
        **mode,
    )
    x, y = data()
    history = model.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0).history
    return model.get_weights(), history


@pytest.mark.parametrize("mode", LOOPS)
def test_an_interval_is_a_weight_that_is_zero_between(mode):
    # Eager steps take seconds where each operation is compiled; four have every kind of step.
    epochs = 1 if mode == "eager" and BACKEND != "torch" else 2
    lazy, history = trained(penalties(lazy=True), epochs=epochs, **LOOPS[mode])
    dense, reference = trained(penalties(lazy=False), epochs=epochs, **LOOPS[mode])
    for expected, actual in zip(dense, lazy, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)
    for name in ("loss", "class_accuracy", "adversarial"):
        np.testing.assert_allclose(history[name], reference[name], rtol=1e-9)


class Own(gbr.GBRModel):
    """A model with a custom train step, in the form of the backend."""

    def penalised(self, data):
        x, y = data
        forward = self.forward_pass(x, y, training=True)
        return self.penalized_loss(self.compute_loss(x, y, forward.y_pred), forward)

    if BACKEND == "tensorflow":

        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = self.penalised(data)
            weights = self.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return {"loss": loss}

    elif BACKEND == "jax":

        def train_step(self, state, data):
            trainable, others, optimizer, metrics = state

            def loss(trainable):
                values = [*trainable, *others, *optimizer, *metrics]
                with keras.StatelessScope(list(zip(variables, values, strict=True))):
                    return self.penalised(data)

            variables = [
                *(*self.trainable_variables, *self.non_trainable_variables),
                *(*self.optimizer.variables, *self.metrics_variables),
            ]

            value, gradients = jax.value_and_grad(loss)(trainable)
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
            return {"loss": value}, (trainable, others, optimizer, metrics)

    else:

        def train_step(self, data):
            loss = self.penalised(data)
            weights = self.trainable_weights
            gradients = torch.autograd.grad(loss, [weight.value for weight in weights])
            with torch.no_grad():
                self.optimizer.apply(gradients, weights)
            return {"loss": loss}


def test_a_custom_train_step_has_the_same_weights():
    use_float64()
    x, y = batch((5,), samples=12)
    results = []
    for cls in (gbr.GBRModel, Own):
        keras.utils.set_random_seed(1)
        model = dense_network(cls=cls)
        penalties = [gbr.InputGradient(0.1, interval=3), gbr.Jacobian(0.1, None, interval=2)]
        model.compile("sgd", logits_loss(), penalties=penalties)
        model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_the_metric_is_the_mean_over_the_steps_that_have_the_penalty():
    use_float64()
    x, y = batch((5,), samples=12)
    model = dense_network()
    penalty = gbr.InputGradient(0.0, interval=3)
    model.compile(keras.optimizers.SGD(0.0), logits_loss(), penalties=[penalty])
    history = model.fit(x, y, batch_size=2, epochs=2, shuffle=False, verbose=0).history
    # Six steps per epoch: those on samples 0, 1 and 6, 7 have the penalty.
    chosen = [0, 1, 6, 7]
    expected = np.mean(values(model, gbr.InputGradient(0.0), x[chosen], y[chosen]))
    np.testing.assert_allclose(history["input_gradient"], [expected] * 2, rtol=1e-12)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch traces nothing.")
def test_the_steps_are_traced_once():
    calls = []

    class Counting(gbr.Jacobian):
        def __call__(self, forward):
            calls.append(forward)
            return super().__call__(forward)

    model = dense_network()
    model.compile("sgd", logits_loss(), penalties=[Counting(0.1, interval=3)])
    x, y = batch((5,), samples=8)
    x = x.astype("float32")
    model.fit(x, y, batch_size=4, verbose=0)
    traced = len(calls)
    assert traced > 0
    model.fit(x, y, batch_size=4, epochs=5, verbose=0)
    assert len(calls) == traced


@given(st.sets(st.integers(2, 12), max_size=4))
def test_the_kinds_of_step_are_those_that_occur(intervals):
    steps = range(math.lcm(1, *intervals))
    occurring = {frozenset(k for k in intervals if step % k == 0) for step in steps}
    assert set(possible_kinds(sorted(intervals))) == occurring


@given(st.lists(st.integers(1, 6), max_size=3), st.integers(0, 10_000))
def test_every_step_has_the_penalties_whose_interval_ends_there(intervals, step):
    penalties = CompilePenalties([gbr.InputGradient(1.0, interval=k) for k in intervals])
    kinds = penalties.step_kinds
    assert number(kinds.traced_kind_at(step)) == kinds.kind_at(step)
    with kinds.restricted_to(kinds.kind_at(step)):
        due = [penalty.interval for penalty, _ in penalties.due()]
    assert due == [k for k in intervals if step % k == 0]


def test_a_penalty_that_is_not_finite_stops_at_its_step():
    model = dense_network()
    penalties = [gbr.InputGradient(1.0, interval=4), gbr.Jacobian(1.0, interval=2)]
    model.compile("sgd", logits_loss(), penalties=penalties, check_numerics=True)
    x, y = np.zeros((1, 5), "float32"), np.array([1])
    for _ in range(2):
        model.train_on_batch(x, y)
    weights = model.get_weights()
    # The hidden units are 0 at this input, so that the loss and its gradient are finite.
    weights[0] = np.full_like(weights[0], 1e30)
    weights[1] = np.zeros_like(weights[1])
    model.set_weights(weights)
    with pytest.raises(NOT_FINITE, match="penalty `jacobian`"):
        model.train_on_batch(x, y)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("samples", [1, 4, 7])
def test_a_fraction_is_the_penalty_of_the_first_samples(fraction, samples):
    use_float64()
    model = conv_network(layers.BatchNormalization, groups=None)
    x, y = batch((6, 6, 2), samples)
    weights = np.linspace(1, 2, samples)
    size = max(1, round(fraction * samples))
    model.compile("sgd", logits_loss())
    arrays = [ops.convert_to_tensor(part) for part in (x, y, weights)]
    whole = model.forward_pass(*arrays, training=True)
    part = whole.part(fraction)
    alone = model.forward_pass(*(part[:size] for part in arrays), training=True)
    assert whole.part(fraction) is part
    for penalty in (gbr.InputGradient(1.0), gbr.Jacobian(1.0), gbr.Adversarial(1.0, 0.1)):
        values = penalty(alone)
        expected = to_numpy(values)
        assert expected.shape == (size,)
        np.testing.assert_allclose(to_numpy(penalty(part)), expected, rtol=1e-9)
        means = [number(forward.sample_mean(values)) for forward in (part, alone)]
        np.testing.assert_allclose(*means)


def test_a_fraction_of_one_is_the_pass_itself():
    model = dense_network()
    forward = model.forward_pass(ops.ones((2, 5)))
    assert forward.part(1.0) is forward


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch traces nothing.")
@pytest.mark.parametrize("mode", [mode for mode in STEPS if mode != "usual"])
def test_fractions_train_as_in_a_graph(mode):
    parts = [
        gbr.InputGradient(0.1, fraction=0.5, at="embedding"),
        gbr.Jacobian(0.1, num_projections=None, fraction=0.25),
        gbr.Adversarial(0.1, 0.1),
    ]
    # XLA draws other random numbers.
    actual, _ = trained(parts, dropout=0.0, **STEPS[mode])
    expected, _ = trained(parts, dropout=0.0)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


def test_the_gradient_of_a_part_agrees_with_differences():
    use_float64()
    model = conv_network()
    x, y = batch((6, 6, 2))
    model.compile("sgd", logits_loss())
    x, y = ops.convert_to_tensor(x), ops.convert_to_tensor(y)
    penalty = gbr.InputGradient(1.0, norm=1)
    check_gradient(
        model, lambda: ops.mean(penalty(model.forward_pass(x, y, training=True).part(0.5)))
    )


def test_equal_pullbacks_are_taken_once():
    use_float64()
    model = dense_network(1)
    x, y = batch((5,), classes=2)
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    forward = model.forward_pass(ops.convert_to_tensor(x), ops.convert_to_tensor(y))
    gradients, counter = forward._gradients, itertools.count()

    def counted(*args):
        next(counter)
        return gradients(*args)

    forward._gradients = counted
    shared = [
        gbr.InputGradient(1.0),
        gbr.InputGradient(1.0, norm="inf", target=0.5),
        gbr.InputGradient(1.0, method="finite_difference"),
        gbr.Adversarial(1.0, 0.1),
    ]
    for penalty in shared:
        alone = penalty(model.forward_pass(ops.convert_to_tensor(x), ops.convert_to_tensor(y)))
        np.testing.assert_array_equal(to_numpy(penalty(forward)), to_numpy(alone))
    assert next(counter) == 1
    gbr.InputGradient(1.0, of="output")(forward)
    gbr.InputGradient(1.0, of="label_probability")(forward)
    assert next(counter) == 4
