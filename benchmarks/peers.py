"""Training steps with a penalty against the same step written by hand in PyTorch or JAX.

    KERAS_BACKEND=torch python benchmarks/peers.py
    KERAS_BACKEND=jax python benchmarks/peers.py --rounds 40

The step by hand runs the same network, through Keras, on the same batch from the same weights, with
SGD and momentum. A few lines of the framework differentiate the penalty. Before anything is timed,
one step of each must leave the same weights. The variants take turns in one process; the ratios are
to the step by hand.
"""

import keras
import numpy as np
from side_by_side import batch_for, compiled, run, small_resnet

import keras_gbr as gbr

WEIGHT, RATE, MOMENTUM, SAMPLES, CLASSES = 0.1, 0.01, 0.9, 64, 10


def torch_step(model, x, y):
    """Double backpropagation in PyTorch: a function that takes a step, and one for the weights."""
    import torch

    weights = [weight.value for weight in model.trainable_weights]
    optimizer = torch.optim.SGD(weights, RATE, momentum=MOMENTUM)
    labels = y.long()

    def step():
        inputs = x.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(inputs, training=True), labels)
        # The mean loss divides the gradient of each sample by the batch size.
        (gradient,) = torch.autograd.grad(loss * len(x), inputs, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        optimizer.zero_grad()
        (loss + WEIGHT * penalty).backward()
        optimizer.step()
        return float(loss.detach())

    return step, lambda: weights


def jax_step(model, x, y):
    """`jax.grad` of `jax.grad`, compiled; the same two functions."""
    import jax
    import jax.numpy as jnp

    def losses(inputs, weights, states):
        logits, states = model.stateless_call(weights, states, inputs, training=True)
        logs = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(logs, y[:, None], axis=1).sum(), states

    def total(weights, states):
        (loss, states), gradient = jax.value_and_grad(losses, has_aux=True)(x, weights, states)
        penalty = jnp.square(gradient).sum(axis=(1, 2, 3)).mean()
        return loss / len(x) + WEIGHT * penalty, (loss / len(x), states)

    @jax.jit
    def update(weights, states, velocities):
        gradients, (loss, states) = jax.grad(total, has_aux=True)(weights, states)
        velocities = [MOMENTUM * v - RATE * g for v, g in zip(velocities, gradients, strict=True)]
        weights = [w + v for w, v in zip(weights, velocities, strict=True)]
        return weights, states, velocities, loss

    state = [
        [weight.value for weight in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
        [jnp.zeros_like(weight.value) for weight in model.trainable_variables],
    ]

    def step():
        *state[:], loss = update(*state)
        return float(loss)

    return step, lambda: state[0]


STEPS = {"torch": torch_step, "jax": jax_step}


def peers():
    """InputGradient on ResNet-20, 32 x 32 x 3, batch 64."""
    by_hand = keras.Model(*small_resnet())
    ours = compiled(gbr.GBRModel(*small_resnet()), penalties=[gbr.InputGradient(WEIGHT)])
    ours.set_weights(by_hand.get_weights())
    x, y = batch_for(ours, SAMPLES, CLASSES)
    step, weights = STEPS[keras.backend.backend()](by_hand, x, y)
    variants = {"by hand": step, "keras_gbr": lambda: ours.train_on_batch(x, y)}
    for variant in variants.values():
        variant()
    pairs = zip(weights(), ours.trainable_weights, strict=True)
    errors = [_difference(one, other) for one, other in pairs]
    print(f"largest relative difference of a weight after one step: {max(errors):.1e}")
    return variants


def _difference(one, other):
    one, other = keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
    return np.max(np.abs(one - other)) / np.max(np.abs(other))


if __name__ == "__main__":
    if keras.backend.backend() not in STEPS:
        raise SystemExit("peers.py: error: set KERAS_BACKEND to jax or torch.")
    run(__doc__.splitlines()[0], {"peers": (peers, 20)})
