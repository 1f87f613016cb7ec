"""Runs code with other values of variables, and keeps it from assigning them."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops


class NestedStatelessScope(keras.StatelessScope):
    """A stateless scope that may be inside another one.

    A variable that is given no value has the value that it has around the scope. In Keras' own
    scope it has the value from outside of all scopes.

    Args:
        values: Pairs of variables and the values that they have inside.
        collect_losses: Whether layers note in `losses` what they add to the loss.
        overwritten: As `values`, for variables that the code assigns. The gradient with respect
            to the value inside goes to the variable as it is around the scope, as it does if a
            variable is assigned in place.

    Attributes:
        losses: What the layers have added to the loss, if that is collected.
        updates: Pairs of a variable that was assigned inside and its last value.
    """

    def __init__(
        self,
        values: Iterable[tuple[keras.Variable, Any]] = (),
        collect_losses: bool = False,
        overwritten: Iterable[tuple[keras.Variable, Any]] = (),
    ) -> None:
        overwritten = list(overwritten)
        super().__init__([*values, *overwritten], collect_losses=collect_losses)
        self._updated: dict[int, keras.Variable] = {}
        self._overwritten = {id(variable) for variable, _ in overwritten}

    @property
    def updates(self) -> list[tuple[keras.Variable, Any]]:
        return [(variable, self.get_current_value(variable)) for variable in self._updated.values()]

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        super().add_update(update)
        self._updated[id(update[0])] = update[0]

    def get_current_value(self, variable: keras.Variable) -> Any:
        value = super().get_current_value(variable)
        outer = getattr(self, "original_scope", None)
        around = None if outer is None else outer.get_current_value(variable)
        if value is None:
            return around
        if id(variable) not in self._overwritten:
            return value
        around = ops.convert_to_tensor(variable._value if around is None else around)
        return ops.stop_gradient(value) + (around - ops.stop_gradient(around))
