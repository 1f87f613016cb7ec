"""Numbers of a penalty that may change while a model trains, as a learning rate may.

Outside a step the number is a plain float. Inside a step it is a tensor that the backend can change
between two steps without compiling again.
"""

import inspect
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from keras_gbr import _checks as check
from keras_gbr import backend

_in_step = threading.local()


class LiveNumber:
    """A number as an attribute of a penalty. It is checked when it is set.

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
        tensors = getattr(_in_step, "tensors", {})
        return tensors.get((id(penalty), self.name), vars(penalty).get(self.name))

    def __set__(self, penalty: Any, value: Any) -> None:
        checked = self.check(self.name, value)
        penalty._check_assignment(self.name, checked)
        vars(penalty)[self.name] = checked
        penalty._tell_listeners()


class FixedWhenCompiled:
    """Base of penalties: in a penalty of a compiled model, only live numbers can be set."""

    _fixed: frozenset[str] = frozenset()

    def _fix(self, listener: Callable[[], None]) -> None:
        """Makes all arguments but live numbers read-only; `compile` calls it.

        Args:
            listener: A bound method to call when a live number changes. It is held weakly.
        """
        constructors = [
            vars(cls)["__init__"] for cls in type(self).__mro__ if "__init__" in vars(cls)
        ]
        names = [name for each in constructors for name in inspect.signature(each).parameters]
        vars(self)["_fixed"] = frozenset(names)
        vars(self).setdefault("_listeners", []).append(weakref.WeakMethod(listener))

    def _tell_listeners(self) -> None:
        """Calls the listeners after a live number has changed."""
        alive = [(ref, ref()) for ref in vars(self).get("_listeners", ())]
        vars(self)["_listeners"] = [ref for ref, listener in alive if listener is not None]
        for _, listener in alive:
            if listener is not None:
                listener()

    def _check_assignment(self, name: str, value: Any) -> None:
        """Refuses to turn a live number of a compiled penalty into a schedule, or back."""
        before = vars(self).get(name)
        if self._fixed and isinstance(before, float) != isinstance(value, float):
            raise check.error(
                f"`{name}` of a compiled penalty stays a number, or stays a schedule. Compile the "
                f"model with another penalty. It was {before!r}.",
                name,
                value,
            )

    def __setattr__(self, name: str, value: Any) -> None:
        is_live = isinstance(getattr(type(self), name, None), LiveNumber)
        if name in self._fixed and not is_live:
            raise AttributeError(
                f"`{name}` of a compiled penalty is read-only; only its weight (of `Adversarial` "
                "its epsilon too) can change while a model trains. Make a new penalty and compile "
                f"the model with it. Received: {name}={value!r}"
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        # A copy belongs to no model.
        return {k: v for k, v in vars(self).items() if k not in ("_listeners", "_fixed")}


class LiveNumbers:
    """The live numbers of penalties, and the tensors that stand for them in a step.

    Args:
        penalties: The penalties. Their other arguments become read-only.
    """

    def __init__(self, penalties: Iterable[Any]) -> None:
        penalties = list(penalties)
        self._owners = [(penalty, name) for penalty in penalties for name in _names(penalty)]
        self._variables = backend.held_numbers(self.current())
        for penalty in penalties:
            penalty._fix(self._update_variables)

    def current(self) -> list[float]:
        """The numbers as they are now."""
        return [float(getattr(penalty, name)) for penalty, name in self._owners]

    def _update_variables(self) -> None:
        for variable, value in zip(self._variables, self.current(), strict=False):
            variable.assign(value)

    @contextmanager
    def replaced_by(self, tensors: Iterable[Any]) -> Iterator[None]:
        """Lets the penalties read tensors in this thread.

        Args:
            tensors: One scalar tensor for each number of `current`.
        """
        keys = [(id(penalty), name) for penalty, name in self._owners]
        previous = getattr(_in_step, "tensors", {})
        _in_step.tensors = {**previous, **dict(zip(keys, tensors, strict=True))}
        try:
            yield
        finally:
            _in_step.tensors = previous

    @contextmanager
    def read_in_step(self) -> Iterator[None]:
        """Lets the penalties read the variables of the backend, if it has any, in this thread."""
        if not self._variables:
            yield
            return
        with self.replaced_by([variable.value for variable in self._variables]):
            yield


def _names(penalty: Any) -> list[str]:
    """The names of the live numbers of a penalty that are numbers now, not schedules."""
    names = {
        name: None
        for cls in type(penalty).__mro__
        for name, value in vars(cls).items()
        if isinstance(value, LiveNumber)
    }
    return [name for name in names if isinstance(vars(penalty).get(name), float)]
