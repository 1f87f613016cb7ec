"""The maps onto kernels of given norm: first and second derivatives."""

import numpy as np
import pytest
from keras import ops

from keras_gbr.maths import equal_norm as maps
from support import oracles
from support.calls import (
    MODES,
    deviation,
    gradient,
    random_kernel,
    slopes_of,
    value_and_gradients,
    with_gradients,
)

FORMS = [(per_filter, center) for per_filter in (True, False) for center in (True, False)]
pytestmark = pytest.mark.usefixtures("double_precision")
modes = pytest.mark.parametrize("mode", MODES)


def weighted(form):
    """Scalar functions of a map's result, in Keras and in NumPy; their upstream varies too."""
    weights = random_kernel(4, 3, 2, seed=5)

    def in_keras(*args):
        return ops.sum(ops.convert_to_tensor(weights) * form[0](*args) ** 3)

    def in_numpy(*args):
        return np.sum(weights * form[1](*args) ** 3)

    return in_keras, in_numpy


DIFFERENTIATED = {
    **{
        f"equal_norm{form}": (
            lambda w, form=form: maps.equal_norm(w, 2.0, *form),
            lambda w, form=form: oracles.equal_norm(w, 2.0, *form),
        )
        for form in FORMS
    },
    "weight_norm": (
        lambda w: maps.weight_norm(w, np.array([0.5, -2.0])),
        lambda w: oracles.weight_norm(w, np.array([0.5, -2.0])),
    ),
    "weight_standardization": (maps.weight_standardization, oracles.weight_standardization),
}
differentiated = pytest.mark.parametrize("name", DIFFERENTIATED)


@modes
@differentiated
def test_gradients_are_those_of_central_differences(name, mode):
    in_keras, in_numpy = weighted(DIFFERENTIATED[name])
    kernel = random_kernel(4, 3, 2)
    value, (slopes,) = value_and_gradients(in_keras, kernel, mode=mode)
    assert value == pytest.approx(in_numpy(kernel), rel=1e-12)
    assert deviation(slopes, oracles.central_differences(in_numpy, kernel)) < 1e-7


@pytest.mark.parametrize(
    ("in_keras", "in_numpy", "size"),
    [
        *[
            (
                lambda w, a, form=form: maps.equal_norm(w, a, *form),
                lambda w, a, form=form: oracles.equal_norm(w, a, *form),
                (),
            )
            for form in FORMS
        ],
        (maps.weight_norm, oracles.weight_norm, (2,)),
    ],
)
def test_gradients_reach_alpha_and_gain(in_keras, in_numpy, size):
    in_keras, in_numpy = weighted((in_keras, in_numpy))
    kernel, scale = random_kernel(4, 3, 2), np.full(size, 1.7)
    _, (by_kernel, by_scale) = value_and_gradients(in_keras, kernel, scale)
    expected = oracles.central_differences(lambda w: in_numpy(w, scale), kernel)
    assert deviation(by_kernel, expected) < 1e-7
    assert (
        deviation(by_scale, oracles.central_differences(lambda s: in_numpy(kernel, s), scale))
        < 1e-7
    )


@modes
@differentiated
def test_second_derivatives_are_those_of_central_differences(name, mode):
    in_keras, _ = weighted(DIFFERENTIATED[name])
    kernel = random_kernel(4, 3, 2)
    first = slopes_of(in_keras)
    slopes = gradient(lambda w: ops.sum(ops.square(first(w))), kernel, mode=mode)
    # The first derivative is checked above; its differences are the reference here.
    numeric = with_gradients(in_keras)
    expected = oracles.central_differences(
        lambda w: np.sum(numeric(w)[1][0] ** 2), kernel, step=1e-4
    )
    assert deviation(slopes, expected) < 1e-6


@differentiated
def test_gradients_are_orthogonal_to_the_raw_kernel(name):
    in_keras, _ = weighted(DIFFERENTIATED[name])
    kernel = random_kernel(4, 3, 2)
    slopes = gradient(in_keras, kernel)
    # No map depends on the scale of the kernel: the derivative along it is 0, to rounding.
    assert abs(np.sum(slopes * kernel)) < 1e-12 * np.linalg.norm(slopes)
