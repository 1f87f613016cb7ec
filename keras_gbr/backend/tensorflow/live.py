"""Numbers that a compiled step reads anew each time."""

import keras


def held_numbers(values: list[float]) -> list[keras.Variable]:
    """Variables with these values. A graph reads what they hold when it runs.

    Args:
        values: The numbers now. Variables are made for the strategy that is in scope.
    """
    dtype = "float64" if keras.config.floatx() == "float64" else "float32"
    return [keras.Variable(value, trainable=False, dtype=dtype) for value in values]
