"""The normal numbers that every backend draws alike."""

import itertools

import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_gbr.maths.random_normal import normal, threefry_2x32
from support.calls import MODES, USUAL, assert_equal, to_numpy

pytestmark = pytest.mark.jax

modes = pytest.mark.parametrize("mode", MODES)

# Key, counter and words of Threefry-2x32 with 20 rounds: the known answers of Random123.
KNOWN_ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def words(*numbers):
    """Unsigned numbers as the int32 of the same bits."""
    return np.array(numbers, "uint32").view("int32")


def drawn(shape=(50, 40), seed=3, stream=0, step=0):
    return to_numpy(MODES[USUAL](lambda: normal(shape, seed, stream, step))())


@modes
@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN_ANSWERS)
def test_threefry_gives_the_known_answers(key, counter, expected, mode):
    def run(key, counter):
        return threefry_2x32((key[0], key[1]), (counter[:1], counter[1:]))

    arguments = map(ops.convert_to_tensor, (words(*key), words(*counter)))
    found = MODES[mode](run)(*arguments)
    assert_equal(np.concatenate([to_numpy(word) for word in found]), words(*expected))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (4, 7), (5, 8), (1000, 3)])
def test_numbers_have_the_shape_and_are_finite(shape):
    numbers = drawn(shape)
    assert numbers.shape == shape
    assert numbers.dtype == "float32"
    assert np.isfinite(numbers).all()
    assert len(np.unique(numbers)) == numbers.size


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_numbers_are_standard_normal(seed):
    numbers = drawn((500, 200), seed).astype("float64").ravel()
    # Four standard deviations of the mean of n numbers of these variances: 1, 2, 15 and 96.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert np.mean(numbers**power) == pytest.approx(mean, abs=4 * (variance / 1e5) ** 0.5)
    assert stats.kstest(numbers, "norm").pvalue > 1e-3


def test_another_seed_stream_or_step_gives_independent_numbers():
    base = {"seed": 3, "stream": 5, "step": 7}
    others = [base | {name: value + 1} for name, value in base.items()]
    # Swapped arguments, and the first stream of a replica, count as different arguments too.
    others += [{"seed": 5, "stream": 3, "step": 7}, {"seed": 7, "stream": 5, "step": 3}]
    others += [base | {"stream": 2**16}]
    draws = [drawn((100, 100), **arguments).ravel() for arguments in (base, *others)]
    for one, other in itertools.combinations(draws, 2):
        # Independent columns of 10^4 numbers correlate by 0.01.
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.045
        assert np.mean(one == other) < 0.001


def test_the_columns_and_rows_of_a_draw_are_independent():
    correlations = np.corrcoef(drawn((10_000, 6)), rowvar=False) - np.eye(6)
    assert np.abs(correlations).max() < 0.045


@modes
def test_numbers_are_the_same_in_every_way_of_running(mode):
    run = MODES[mode](lambda step: normal((6, 5), 3, 1, step))
    for step in (0, 2**20):
        expected = to_numpy(normal((6, 5), 3, 1, step))
        found = to_numpy(run(ops.convert_to_tensor(step, "int32")))
        # The words are equal; roots and cosines round in the last digits.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
