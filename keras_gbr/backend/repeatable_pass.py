"""Repeats a pass that assigns variables in place."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras import ops

from keras_gbr._keras.patching import replaced
from keras_gbr._keras.stateless import NestedStatelessScope


@contextmanager
def repeatable(
    variables: Iterable[keras.Variable],
) -> Iterator[Callable[[Any], NestedStatelessScope]]:
    """See `keras_gbr.backend.contract`. Only variables that are assigned are copied."""
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
        yield lambda values: NestedStatelessScope(values, overwritten=before.values())
