"""Arguments out of range: a ValueError that names the argument and what was received."""

import keras
import numpy as np
import pytest

import keras_gbr as gbr


def enc(**arguments):
    return gbr.ENC(keras.layers.Dense(2), **arguments)


NO_NUMBERS = [float("nan"), float("inf"), -float("inf"), "1", None, True, 1j, [1.0]]
NOT_NEGATIVE = [-1, -1e-9, *NO_NUMBERS]
POSITIVE = [0, 0.0, *NOT_NEGATIVE]
NO_COUNTS = [0, -1, 2.0, 2.5, float("nan"), "2", None, True]
NO_SWITCHES = [1, 0, "yes", None, 1.0]
BAD_ARGUMENTS = [
    (gbr.Spectral, "factor", NOT_NEGATIVE),
    (gbr.Spectral, "method", ["qr", "", None, 1, ["svd"]]),
    (gbr.Spectral, "num_iterations", NO_COUNTS),
    (gbr.Spectral, "operator", ["conv", None, 1]),
    (gbr.WEISSI, "log_factor", NOT_NEGATIVE),
    (gbr.WEISSI, "l1_factor", NOT_NEGATIVE),
    (gbr.WEISSI, "epsilon", POSITIVE),
    (gbr.ShiftedL2, "factor", NOT_NEGATIVE),
    (gbr.ShiftedL2, "epsilon", NOT_NEGATIVE),
    (gbr.Sum, "regularizers", [[], (), None, gbr.Spectral(), "l2", [None], [gbr.WEISSI(), None]]),
    (gbr.EqualNorm, "alpha", POSITIVE),
    (gbr.EqualNorm, "per_filter", NO_SWITCHES),
    (gbr.EqualNorm, "center", NO_SWITCHES),
    (enc, "alpha", POSITIVE),
    (enc, "per_filter", NO_SWITCHES),
    (enc, "center", NO_SWITCHES),
    (enc, "learnable_alpha", NO_SWITCHES),
]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [(make, name, value) for make, name, values in BAD_ARGUMENTS for value in values],
)
def test_a_bad_argument_is_named_with_the_value_received(make, name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be .* Received: {name}=") as error:
        make(**{name: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("bad", ["no regularizer", 3, [object()]])
def test_a_sum_with_something_else_than_regularizers_is_a_value_error(bad):
    with pytest.raises(ValueError, match=r"Received"):
        gbr.Sum([gbr.Spectral(), bad])


@pytest.mark.parametrize(
    "number", [1, 2.5, np.float32(0.5), np.float64(0.5), np.int64(3), np.array(2.0)[()]]
)
def test_numpy_numbers_are_accepted_and_stored_as_python_numbers(number):
    for stored in (
        gbr.Spectral(factor=number).factor,
        gbr.WEISSI(log_factor=number).log_factor,
        gbr.ShiftedL2(epsilon=number).epsilon,
        gbr.EqualNorm(alpha=number).alpha,
        enc(alpha=number).alpha,
    ):
        assert type(stored) is float
        assert stored == number
    assert type(gbr.Spectral(num_iterations=np.int64(3)).num_iterations) is int


def test_the_limits_of_the_ranges_are_accepted():
    assert gbr.Spectral(0, num_iterations=1).factor == 0.0
    assert gbr.WEISSI(0, 0).log_factor == 0.0
    assert gbr.ShiftedL2(0, 0).epsilon == 0.0
