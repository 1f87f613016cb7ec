"""Numbers of a penalty that may change while a model trains, as the learning rate may.

Outside of a step such a number is a plain float. A step computes with what the backend can change
between two steps without compiling anew, which `values_in_step` puts in its place.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_in_step = threading.local()


class LiveNumber:
    """An attribute of a penalty: a number, checked when it is set, live while a model trains.

    Args:
        check: Takes name and value, returns the value to keep; raises a `ValueError`.
    """

    def __init__(self, check: Callable[[str, Any], Any]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, penalty: Any, owner: type | None = None) -> Any:
        if penalty is None:
            return self
        values = getattr(_in_step, "values", {})
        return values.get((id(penalty), self.name), vars(penalty).get(self.name))

    def __set__(self, penalty: Any, value: Any) -> None:
        found = self.check(self.name, value)
        penalty.check_assignment(self.name, found)
        vars(penalty)[self.name] = found
        penalty.tell_listeners()


def live_names(penalty: Any) -> list[str]:
    """The names of the live numbers of a penalty that are numbers now, and no schedules."""
    names = {
        name: None
        for cls in type(penalty).__mro__
        for name, value in vars(cls).items()
        if isinstance(value, LiveNumber)
    }
    return [name for name in names if isinstance(vars(penalty).get(name), float)]


@contextmanager
def values_in_step(values: dict[tuple[int, str], Any]) -> Iterator[None]:
    """Lets penalties compute with these values, in this thread.

    Args:
        values: Scalar tensors by the `id` of the penalty and the name of the number.
    """
    previous, _in_step.values = getattr(_in_step, "values", {}), values
    try:
        yield
    finally:
        _in_step.values = previous
