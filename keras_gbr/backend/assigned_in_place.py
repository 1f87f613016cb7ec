"""What a pass changes where variables are assigned in place."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras import ops

from keras_gbr._keras.patching import replaced
from keras_gbr._keras.stateless import Sandbox


@contextmanager
def repeatable(variables: Iterable[keras.Variable]) -> Iterator[Callable[[Any], Sandbox]]:
    """Notes what variables are before a pass inside assigns them, to run the same pass again.

    A layer such as `keras.layers.SpectralNormalization` assigns its kernel when it is called.
    Only what is assigned is copied.

    Args:
        variables: The trainable variables of a model.

    Yields:
        A function of pairs of other variables and values. It returns the scope in which the
        pass, once it is done, can be repeated: these variables start from their values before
        it, too. Their gradients are those at the values that they are assigned, as in the pass.
    """
    before: dict[int, tuple[keras.Variable, Any]] = {}

    def noting(variable: keras.Variable) -> Callable[[Any], Any]:
        assign = variable.assign

        def noted(value: Any) -> Any:
            if id(variable) not in before:
                before[id(variable)] = (variable, ops.stop_gradient(ops.copy(variable.value)))
            return assign(value)

        return noted

    with ExitStack() as stack:
        for variable in variables:
            stack.enter_context(replaced(variable, {"assign": noting(variable)}))
        yield lambda values: Sandbox(values, overwritten=before.values())
