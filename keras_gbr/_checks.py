"""Argument checks: one wording for every error of the package.

Each check returns the argument as a plain Python value, so that what a class stores is
what its configuration holds.
"""

import difflib
import math
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any


def error(expected: str, name: str, value: object) -> ValueError:
    """The error that every check raises: what was expected and what was received."""
    return ValueError(f"{expected} Received: {name}={value!r}")


def number(name: str, value: Any, *, minimum: float = 0.0, exclusive: bool = False) -> float:
    """A finite number, at least (with `exclusive`: greater than) `minimum`."""
    sign = ">" if exclusive else ">="
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        plain = float(value)
        if plain > minimum or (plain == minimum and not exclusive):
            return plain
    raise error(f"`{name}` must be a finite number {sign} {minimum:g}.", name, value)


def number_range(name: str, value: Any) -> tuple[float, float]:
    """A pair of finite numbers, the first less than the second."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        plain = [number(name, bound, minimum=-math.inf) for bound in value]
        if plain[0] < plain[1]:
            return plain[0], plain[1]
    raise error(f"`{name}` must be a pair of numbers (low, high), low < high.", name, value)


def integer(name: str, value: Any, *, minimum: int = 1) -> int:
    """A whole number, at least `minimum`."""
    if _is_whole(value) and int(value) >= minimum:
        return int(value)
    raise error(f"`{name}` must be a whole number >= {minimum}.", name, value)


def boolean(name: str, value: Any) -> bool:
    """`True` or `False`; a number is refused."""
    if isinstance(value, bool):
        return value
    raise error(f"`{name}` must be True or False.", name, value)


def choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """One of the strings in `allowed`."""
    if isinstance(value, str) and value in allowed:
        return value
    options = ", ".join(repr(option) for option in allowed)
    raise error(f"`{name}` must be one of {options}.", name, value)


def axes(name: str, value: Any) -> int | tuple[int, ...]:
    """An axis, or a tuple of different ones."""
    if isinstance(value, (list, tuple)):
        plain = tuple(value)
        if all(_is_whole(axis) for axis in plain) and len(set(plain)) == len(plain):
            return tuple(int(axis) for axis in plain)
    elif _is_whole(value):
        return int(value)
    raise error(f"`{name}` must be a whole number or a tuple of different ones.", name, value)


def closest(name: str, known: Iterable[str]) -> list[str]:
    """Up to five of the known names, those most similar to `name` first."""
    names = list(dict.fromkeys(known))
    return difflib.get_close_matches(name, names, n=5, cutoff=0.5) or names[:5]


def quoted(names: Iterable[str]) -> str:
    """Names as a phrase for an error: "'a', 'b'"."""
    return ", ".join(repr(name) for name in names) or "none"


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
