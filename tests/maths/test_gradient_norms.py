"""Norms of gradients and the steps along which a function grows fastest: by NumPy, and at ties."""

import numpy as np
import pytest
from keras import ops

from keras_gbr.maths.gradient_norms import DUAL, NORMS, gradient_norms, steepest_steps
from support.calls import assert_close

pytestmark = pytest.mark.jax

# Two parts that count as one vector per sample. The second sample has its largest entry three
# times, in both parts; the third has no gradient.
PARTS = [
    np.array([[[1.0, -4.0]], [[2.0, -2.0]], [[0.0, 0.0]]], "float32"),
    np.array([[0.5], [2.0], [0.0]], "float32"),
]
FLAT = np.concatenate([part.reshape(3, -1) for part in PARTS], axis=1)
ORDERS = {1: 1, 2: 2, "inf": np.inf}


def tensors():
    return [ops.convert_to_tensor(part) for part in PARTS]


@pytest.mark.parametrize("norm", NORMS)
def test_the_norm_is_that_of_numpy(norm):
    expected = np.linalg.norm(FLAT, ORDERS[norm], axis=1)
    assert_close(gradient_norms(tensors(), norm), expected, rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_has_length_one_and_grows_by_the_dual_norm(norm):
    steps = steepest_steps(tensors(), norm)
    assert [tuple(step.shape) for step in steps] == [part.shape for part in PARTS]
    flat = np.concatenate([ops.convert_to_numpy(step).reshape(3, -1) for step in steps], axis=1)
    # To the rounding of single precision. Without a gradient there is no step.
    assert_close(np.linalg.norm(flat, ORDERS[norm], axis=1), [1, 1, 0], rtol=1e-6)
    growth = np.linalg.norm(FLAT, ORDERS[DUAL[norm]], axis=1)
    assert_close((flat * FLAT).sum(axis=1), growth, rtol=1e-6)


def test_entries_that_are_equally_large_share_the_step():
    first, second = (ops.convert_to_numpy(step) for step in steepest_steps(tensors(), 1))
    assert_close(first, [[[0, -1]], [[1 / 3, -1 / 3]], [[0, 0]]], rtol=1e-6)
    assert_close(second, [[0], [1 / 3], [0]], rtol=1e-6)
