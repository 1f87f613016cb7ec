"""Normally distributed numbers that are the same under every backend, compiled or not."""

import math
from typing import Any

import keras
from keras import ops

# Threefry-2x32 with 20 rounds: a part of the key is added after every fourth rotation.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def normal(shape: tuple[Any, Any], seed: Any, stream: int, step: Any) -> Any:
    """Standard normal float32 numbers that depend only on the arguments.

    The pseudorandom integers are the same everywhere. The roots and cosines that turn them into
    normally distributed numbers differ between backends in the last digits. Different arguments
    give independent numbers.

    Args:
        shape: Pair of whole numbers or scalar tensors `(rows, columns)`.
        seed: Whole number, or a scalar int32 tensor.
        stream: Whole number, or a scalar int32 tensor.
        step: Scalar integer tensor, variable or whole number.

    Returns:
        Tensor of `shape`.

    Reference:
        Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3" (Threefry); Box and
        Muller 1958.
    """
    rows, columns = shape
    # Box and Muller's method turns two uniform numbers into two normal ones.
    half = (columns + 1) // 2
    index = ops.arange(rows * half, dtype="int32")
    key = (_word(seed), _word(step))
    first, second = threefry_2x32(key, (index, ops.zeros_like(index) + _word(stream)))
    radius = ops.sqrt(-2 * ops.log(_uniform(first)))
    angle = 2 * math.pi * _uniform(second)
    pairs = [ops.reshape(radius * turn(angle), (rows, half)) for turn in (ops.cos, ops.sin)]
    return ops.concatenate(pairs, axis=1)[:, :columns]


def threefry_2x32(key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Two pseudorandom words of 32 bits for each counter: a keyed bijection.

    Args:
        key: Two scalar int32 tensors.
        counter: Two int32 tensors of the same shape.

    Returns:
        Two int32 tensors of that shape, whose bits are the words.
    """
    third = ops.bitwise_xor(ops.bitwise_xor(key[0], key[1]), _word(_PARITY))
    keys = (*key, third)
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            a = a + b
            b = ops.bitwise_xor(_rotated(b, rotation), a)
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + _word(group + 1)
    return a, b


def _word(value: Any) -> Any:
    """The low 32 bits of a number as a scalar int32 tensor."""
    if isinstance(value, int):
        value = (value + 2**31) % 2**32 - 2**31
        return ops.convert_to_tensor(value, "int32")
    if isinstance(value, keras.Variable):
        value = value.value
    return ops.cast(value, "int32")


def _shifted(words: Any, bits: int) -> Any:
    """Words shifted right and filled with zeros. The shift alone would fill with the sign bit."""
    shifted = ops.right_shift(words, _word(bits))
    return ops.bitwise_and(shifted, _word(2 ** (32 - bits) - 1))


def _rotated(words: Any, bits: int) -> Any:
    return ops.bitwise_or(ops.left_shift(words, _word(bits)), _shifted(words, 32 - bits))


def _uniform(words: Any) -> Any:
    """Numbers in (0, 1), never 0 or 1, from the highest 23 bits."""
    return (ops.cast(_shifted(words, 9), "float32") + 0.5) * 2.0**-23
