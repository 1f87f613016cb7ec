"""The maps onto kernels of given norm: value, invariant, derivatives, degenerate filters."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_gbr.maths import equal_norm as maps
from support import oracles
from support.calls import (
    MODES,
    in_double_precision,
    random_kernel,
    value_and_gradients,
    with_gradients,
)

FORMS = [(per_filter, center) for per_filter in (True, False) for center in (True, False)]
# Dense, Conv1D, Conv2D (plain, grouped, pointwise), Conv3D; 1 to 1e6 elements, also in one
# filter or in filters of one element; a prime number of rows.
SHAPES = [
    (1, 1), (7, 1), (1, 7), (10, 4), (3, 4, 5), (3, 3, 4, 6), (3, 3, 2, 6), (1, 1, 8, 5),
    (3, 3, 3, 2, 4), (2, 1, 3, 2, 4), (1009, 3), (499_979, 2), (1_000_000, 1), (1, 1_000_000),
    (1000, 1000), (3, 3, 512, 217), (15_625, 64),
]  # fmt: skip

forms = pytest.mark.parametrize(("per_filter", "center"), FORMS)
modes = pytest.mark.parametrize("mode", MODES)


def squared_norm(kernel):
    return np.sum(np.square(np.asarray(kernel, dtype="float64")))


def has_direction(shape, per_filter, center):
    """Whether a random kernel has one: a centred single entry is 0."""
    return not center or np.prod(shape[:-1] if per_filter else shape) > 1


@forms
@pytest.mark.parametrize("alpha", [0.5, 1, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_result_has_the_squared_norm_alpha(shape, alpha, per_filter, center):
    kernel = random_kernel(*shape, dtype="float32")
    result = maps.equal_norm(kernel, alpha, per_filter, center)
    assert result.shape == shape
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    expected = alpha if has_direction(shape, per_filter, center) else 0.0
    # The claim of the package: 1e-5 relative in float32 up to a million elements.
    assert squared_norm(result) == pytest.approx(expected, rel=1e-5, abs=0)


@in_double_precision
@forms
@pytest.mark.parametrize("shape", [s for s in SHAPES if np.prod(s) < 1e5])
def test_result_is_that_of_numpy(shape, per_filter, center):
    kernel = random_kernel(*shape)
    result = maps.equal_norm(kernel, 2.0, per_filter, center)
    expected = oracles.equal_norm(kernel, 2.0, per_filter, center)
    # Float64 against float64: a few roundings of sums of at most 1e5 terms.
    np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-14)


@st.composite
def kernels(draw, largest_exponent=15):
    """Random kernels whose filters or whose entries differ by orders of magnitude."""
    shape = (draw(st.integers(2, 40)), draw(st.integers(1, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = sorted(draw(st.tuples(*[st.integers(-largest_exponent, largest_exponent)] * 2)))
    spread = shape if draw(st.booleans()) else shape[1:]
    # Between 1 and 9 in size, so that the exponent alone sets the magnitude.
    digits = rng.uniform(1, 9, shape) * rng.choice([-1, 1], shape)
    return (digits * 10.0 ** rng.uniform(low, high - 1 if high > low else high, spread)).astype(
        "float32"
    )


@forms
@given(kernel=kernels(), alpha=st.sampled_from([0.5, 1.0, 2.0]))
def test_entries_from_1e_minus_15_to_1e15_keep_the_norm(kernel, alpha, per_filter, center):
    expected = oracles.equal_norm(kernel, alpha, per_filter, center)
    result = maps.equal_norm(kernel, alpha, per_filter, center)
    # Only a constant filter is lost, in the oracle too.
    assert squared_norm(result) == pytest.approx(squared_norm(expected), rel=1e-5)


@forms
@given(
    ratio=st.floats(1, 1e3),
    scale=st.integers(-10, 10),
    rows=st.integers(9, 600),
    seed=st.integers(0, 99),
)
def test_means_far_above_the_spread_keep_the_norm(ratio, scale, rows, seed, per_filter, center):
    spread = np.random.default_rng(seed).standard_normal((rows, 3))
    kernel = ((spread + ratio) * 10.0**scale).astype("float32")
    result = np.asarray(maps.equal_norm(kernel, 1.0, per_filter, center))
    assert squared_norm(result) == pytest.approx(1.0, rel=1e-5)
    # The mean is known to half an ulp of itself, ratio * 6e-8 of the spread; the entries of
    # the result are at most 1.
    expected = oracles.equal_norm(kernel, 1.0, per_filter, center)
    np.testing.assert_allclose(result, expected, atol=ratio * 1e-6)


@forms
@modes
def test_beyond_that_range_values_and_gradients_are_finite(mode, per_filter, center):
    run = with_gradients(
        lambda w: ops.sum(ops.square(maps.equal_norm(w, 1.0, per_filter, center) - 0.1)), mode
    )
    for scale in (1e-45, 1e-38, 1e-30, 1e-20, 1e20, 1e30, 1e38, 3e38):
        for low in (-1, 0.5):
            kernel = np.random.default_rng(0).uniform(low, 1, (50, 3)) * scale
            value, (slopes,) = run(kernel.astype("float32"))
            assert np.isfinite(value), scale
            assert np.isfinite(slopes).all(), scale


@forms
@modes
def test_a_filter_of_zeros_has_value_and_gradient_zero(mode, per_filter, center):
    kernel = random_kernel(6, 3, dtype="float32")
    kernel[:, 1] = 0
    weights = ops.convert_to_tensor(random_kernel(6, 3, seed=1, dtype="float32"))
    value, (slopes,) = value_and_gradients(
        lambda w: ops.sum(weights * maps.equal_norm(w, 1.0, per_filter, center)), kernel, mode=mode
    )
    assert np.isfinite(value)
    assert np.isfinite(slopes).all()
    if per_filter:
        result = np.asarray(maps.equal_norm(kernel, 1.0, per_filter, center))
        np.testing.assert_array_equal(result[:, 1], 0)
        np.testing.assert_array_equal(slopes[:, 1], 0)
        # The others keep their share of the norm.
        np.testing.assert_allclose(np.sum(result[:, [0, 2]] ** 2, axis=0), 1 / 3, rtol=1e-6)


ALL_MAPS = {
    **{f"equal_norm{form}": lambda w, form=form: maps.equal_norm(w, 1.0, *form) for form in FORMS},
    "weight_norm": lambda w: maps.weight_norm(w, ops.ones(w.shape[-1:], w.dtype)),
    "weight_standardization": maps.weight_standardization,
}
CENTRED = ["equal_norm(True, True)", "equal_norm(False, True)", "weight_standardization"]


@pytest.mark.parametrize("name", ALL_MAPS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 3, 2, 4)])
def test_a_kernel_of_zeros_has_value_and_gradient_zero(name, shape):
    def loss(w):
        return ops.sum(ALL_MAPS[name](w) + ops.square(ALL_MAPS[name](w) - 1.0))

    value, (slopes,) = value_and_gradients(loss, np.zeros(shape, "float32"))
    assert value == np.prod(shape)
    np.testing.assert_array_equal(slopes, 0)


# XLA on the CPU merges the two stages of a sum into one: a million equal numbers round more.
@pytest.mark.parametrize(
    ("rows", "mode"),
    [
        (rows, mode)
        for rows in (27, 4608, 1_000_000)
        for mode in MODES
        if (rows, mode) != (10**6, "xla")
    ],
)
@pytest.mark.parametrize("name", CENTRED)
def test_a_constant_filter_has_value_and_gradient_zero(rows, name, mode):
    run = with_gradients(lambda w: ops.sum(ops.square(ALL_MAPS[name](w) - 1.0)), mode)
    # 0.1 is not a float32: the sum rounds, and centring leaves the rounding of the mean.
    for constant in (0.1, -7.7e14, 3.3e-15):
        value, (slopes,) = run(np.full((rows, 1), constant, "float32"))
        assert value == rows
        np.testing.assert_array_equal(slopes, 0)


@pytest.mark.parametrize("rows", [2, 3, 11, 27, 144, 577, 1000])
def test_constant_filters_of_any_value_are_without_direction(rows):
    constants = np.random.default_rng(rows).uniform(-1, 1, 200)
    kernel = np.tile(constants, (rows, 1)).astype("float32")
    for name in ("equal_norm(True, True)", "weight_standardization"):
        np.testing.assert_array_equal(ALL_MAPS[name](kernel), 0)


def test_a_filter_of_one_element_keeps_its_sign_without_centring():
    kernel = np.array([[[-3.0, 0.5, 1e-9, 0.0]]], "float32")
    np.testing.assert_allclose(
        maps.equal_norm(kernel, 1.0, True, False), [[[-0.5, 0.5, 0.5, 0.0]]], rtol=1e-6
    )
    np.testing.assert_array_equal(maps.equal_norm(kernel, 1.0, True, True), np.zeros_like(kernel))


@in_double_precision
@pytest.mark.parametrize("shape", [(9, 4), (3, 3, 2, 5), (3, 2, 2, 3, 4)])
def test_weight_norm_and_weight_standardization_are_those_of_numpy(shape):
    kernel, gain = random_kernel(*shape), random_kernel(shape[-1], seed=1)
    np.testing.assert_allclose(
        maps.weight_norm(kernel, gain), oracles.weight_norm(kernel, gain), rtol=1e-12
    )
    standard = np.asarray(maps.weight_standardization(kernel))
    np.testing.assert_allclose(standard, oracles.weight_standardization(kernel), atol=1e-12)
    filters = standard.reshape(-1, shape[-1])
    np.testing.assert_allclose(filters.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(filters.var(axis=0), 1, rtol=1e-12)


@in_double_precision
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ALL_MAPS)
def test_half_precision_kernels_are_normalised_in_single_precision(name, dtype):
    # Squares of 3e-5 vanish in float16, those of 3e4 overflow.
    for scale in (3e-5, 1.0, 1e4):
        kernel = ops.cast(random_kernel(20, 4) * scale, dtype)
        result = ALL_MAPS[name](kernel)
        assert keras.backend.standardize_dtype(result.dtype) == dtype
        expected = ALL_MAPS[name](ops.cast(kernel, "float64"))
        # Only the rounding to the 8 bits of bfloat16 differs.
        np.testing.assert_allclose(ops.cast(result, "float64"), expected, rtol=2**-8, atol=1e-4)
