"""The kinds of step that penalties with different intervals make."""

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from keras import ops


class StepKinds:
    """The kinds of step of a model, numbered from 0.

    A penalty with interval k is part of the steps 0, k, 2k and so on. The kind of a step is the
    set of the intervals that divide its number. Without intervals above 1 there is one kind.

    Args:
        intervals: The intervals of the penalties, whole numbers >= 1.
    """

    def __init__(self, intervals: Iterable[int]) -> None:
        self._intervals = sorted(set(intervals) - {1})
        self._kinds = possible_kinds(self._intervals)
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._kinds)

    def kind_at(self, step: int) -> int:
        """The kind of a step.

        Args:
            step: The number of updates before it.
        """
        return self._kinds.index(frozenset(k for k in self._intervals if step % k == 0))

    def traced_kind_at(self, step: Any) -> Any:
        """The kind of a step whose number is known only to a graph.

        Args:
            step: Scalar integer tensor, the number of updates before it.

        Returns:
            Scalar int32 tensor.
        """
        numbered = list(enumerate(self._intervals))
        codes = [sum(2**j for j, k in numbered if k in kind) for kind in self._kinds]
        divides = [ops.cast(ops.equal(step % k, 0), "int32") for _, k in numbered]
        code = sum(2**j * each for (j, _), each in zip(numbered, divides, strict=True))
        return ops.argmax(ops.equal(ops.convert_to_tensor(codes, "int32"), code))

    @property
    def current(self) -> int | None:
        """The kind that this thread is restricted to, `None` if it is not restricted."""
        return getattr(self._local, "kind", None)

    @contextmanager
    def restricted_to(self, kind: int) -> Iterator[None]:
        """Lets this thread take every step inside the block as one of this kind."""
        previous, self._local.kind = self.current, kind
        try:
            yield
        finally:
            self._local.kind = previous

    def includes(self, interval: int) -> bool:
        """Whether steps of the current kind have the penalties with this interval.

        Without a restriction every step has all penalties.
        """
        return self.current is None or interval in {1} | self._kinds[self.current]


def possible_kinds(intervals: Sequence[int]) -> list[frozenset[int]]:
    """The sets of intervals that divide a step which no other interval divides.

    A set is possible if it contains every interval that divides its least common multiple. It is
    then the kind of the step with that number.

    Args:
        intervals: Different whole numbers >= 2.

    Returns:
        The sets, the largest last.
    """
    kinds = {frozenset[int]()}
    for interval in intervals:
        for kind in list(kinds):
            multiple = math.lcm(interval, *kind)
            kinds.add(frozenset(k for k in intervals if multiple % k == 0))
    return sorted(kinds, key=lambda kind: (len(kind), sorted(kind)))
