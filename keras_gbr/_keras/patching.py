"""Other values of an object's attributes during a call, in one thread only."""

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_local = threading.local()
# By the `id` of an object: how many open blocks, in any thread, replace each of its attributes.
_in_use: dict[int, Counter[str]] = {}


@contextmanager
def replaced(
    target: Any, values: Mapping[str, Any], check: Callable[[], None] | None = None
) -> Iterator[None]:
    """Lets this thread read other values of attributes; other threads, such as replicas, do not.

    The attributes themselves stay as they are, and so does what Keras tracks, saves and counts.
    Inside the block the class of the object is a subclass of the one it had.

    Args:
        target: Any object with a `__dict__`.
        values: By the name of an attribute, which is stored in `vars(target)` or defined by the
            class: the value to read in its place.
        check: Called when one of them is read. It raises an error to refuse that.
    """
    mine = _values_of_this_thread()
    keys = [(id(target), name) for name in values]
    outer = {key: mine[key] for key in keys if key in mine}
    _enter(target, list(values))
    mine.update({key: (value, check) for key, value in zip(keys, values.values(), strict=True)})
    try:
        yield
    finally:
        for key in keys:
            del mine[key]
        mine.update(outer)
        _leave(target, list(values))


def _values_of_this_thread() -> dict[tuple[int, str], tuple[Any, Callable[[], None] | None]]:
    if not hasattr(_local, "values"):
        _local.values = {}
    values: dict[tuple[int, str], tuple[Any, Callable[[], None] | None]] = _local.values
    return values


def _enter(target: Any, names: list[str]) -> None:
    with _lock:
        users = _in_use.setdefault(id(target), Counter())
        users.update(names)
        _set_class(target, frozenset(users))


def _leave(target: Any, names: list[str]) -> None:
    with _lock:
        users = _in_use[id(target)]
        users.subtract(names)
        left = frozenset(+users)
        _set_class(target, left)
        if not left:
            del _in_use[id(target)]


def _set_class(target: Any, names: frozenset[str]) -> None:
    """Makes an object read the attributes in `names`, and no others, by thread."""
    plain = vars(type(target)).get("_replaces", type(target))
    cls = _class_with(plain, names) if names else plain
    # Past the `__setattr__` of Keras and PyTorch, which track what is assigned.
    object.__setattr__(target, "__class__", cls)


@functools.cache
def _class_with(plain: type, names: frozenset[str]) -> type:
    """A subclass that looks like the class itself and reads attributes by thread."""
    namespace = {
        "_replaces": plain,
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
    }
    cls = type(plain)(plain.__name__, (_Quiet, plain), namespace)
    for name in names:
        type.__setattr__(cls, name, _ByThread(cls, name))
    return cls


class _Quiet:
    """Keeps the `__init_subclass__` of a class, which may have effects, from being called."""

    _replaces: type

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


class _ByThread:
    """An attribute that has another value in some threads."""

    def __init__(self, cls: type, name: str) -> None:
        self.cls, self.name = cls, name

    def __get__(self, target: Any, owner: type | None = None) -> Any:
        if target is None:
            return getattr(super(self.cls, owner), self.name)
        mine = _values_of_this_thread()
        key = (id(target), self.name)
        if key in mine:
            value, check = mine[key]
            if check is not None:
                check()
            return value
        if self.name in vars(target):
            return vars(target)[self.name]
        return getattr(super(self.cls, target), self.name)

    def __set__(self, target: Any, value: Any) -> None:
        vars(target)[self.name] = value

    def __delete__(self, target: Any) -> None:
        del vars(target)[self.name]
