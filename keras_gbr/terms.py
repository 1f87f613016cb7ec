"""What a compiled model adds to its loss, and in which steps."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from keras_gbr import backend
from keras_gbr.forward_pass import ForwardPass
from keras_gbr.penalties import InputPenalty, Penalty


class Terms:
    """The penalties of a compiled model and the metrics that track their values.

    A plain object on purpose: Keras tracks lists of metrics set on a model for good, and a
    second `compile` has to forget the first one's.

    Penalties of different intervals make steps of different kinds, numbered as in `kinds`. A
    kind is the set of intervals that end at a step.
    """

    def __init__(self, penalties: Sequence[Penalty], check_numerics: bool = False) -> None:
        self.penalties = list(penalties)
        self.check_numerics = check_numerics
        # What `compile` was asked for: "auto" means something else under another backend.
        self.jit_compile: bool | str = "auto"
        self.metrics = [keras.metrics.Mean(name=penalty.name) for penalty in penalties]
        # The kinds of step, `None` where there is one, that were looked through for what has no
        # second derivative.
        self.examined: set[int | None] = set()
        # What `check_numerics` looks at, in the order of its findings.
        self.checked: list[str] = []
        # The trainable weights, by number, that steps of some kind have a gradient for.
        self.reached: set[int] = set()
        self._intervals = sorted({penalty.interval for penalty in penalties} - {1})
        self.kinds = step_kinds(self._intervals)
        self._local = threading.local()

    def kind_of(self, step: int) -> int:
        """The number of the kind of a step, of which the number of updates so far is known."""
        return self.kinds.index(frozenset(k for k in self._intervals if step % k == 0))

    def traced_kind_of(self, step: Any) -> Any:
        """The same within a graph.

        Args:
            step: Scalar integer tensor, the number of updates so far.

        Returns:
            Scalar int32 tensor.
        """
        numbered = list(enumerate(self._intervals))
        codes = [sum(2**j for j, k in numbered if k in kind) for kind in self.kinds]
        ends = [ops.cast(ops.equal(step % k, 0), "int32") for _, k in numbered]
        code = sum(2**j * end for (j, _), end in zip(numbered, ends, strict=True))
        return ops.argmax(ops.equal(ops.convert_to_tensor(codes, "int32"), code))

    @property
    def current(self) -> int | None:
        """The kind that steps are restricted to in this thread, if they are."""
        return getattr(self._local, "kind", None)

    @contextmanager
    def restricted_to(self, kind: int) -> Iterator[None]:
        """Takes every step inside for one of this kind, in this thread."""
        previous, self._local.kind = self.current, kind
        try:
            yield
        finally:
            self._local.kind = previous

    def _due(self) -> list[tuple[Penalty, Any]]:
        """The penalties that the current kind of step has; outside of steps, all."""
        pairs = list(zip(self.penalties, self.metrics, strict=True))
        if self.current is None:
            return pairs
        intervals = {1} | self.kinds[self.current]
        return [pair for pair in pairs if pair[0].interval in intervals]

    def forward_pass(
        self, model: keras.Model, x: Any, y: Any, sample_weight: Any, training: bool
    ) -> ForwardPass:
        """A forward pass that records what the penalties need."""
        due = [penalty for penalty, _ in self._due()]
        parameters = any(penalty.needs_parameters for penalty in due)
        names = sorted({p.at for p in due if isinstance(p, InputPenalty) and p.at is not None})
        return ForwardPass(model, x, y, sample_weight, training, parameters, names)

    def add_to(self, loss: Any, forward: ForwardPass, values: dict[str, Any]) -> Any:
        """The loss with the penalties added; updates their metrics and notes the values."""
        values.update({_words(penalty): ops.zeros_like(loss) for penalty in self.penalties})
        for penalty, metric in self._due():
            part = forward.part(penalty.fraction)
            value = penalty(part)
            if len(value.shape):
                value = part.sample_mean(value)
            metric.update_state(value, sample_weight=part.batch_size)
            value = values[_words(penalty)] = ops.cast(value, loss.dtype)
            weight = penalty.weight_at(forward.step)
            if self.current is None and penalty.interval > 1:
                # A train step of one's own has the penalty in every step, here without weight.
                weight = ops.where(ops.equal(forward.step % penalty.interval, 0), weight, 0.0)
            if not isinstance(weight, float):
                weight = ops.cast(weight, loss.dtype)
            elif weight == 0.0:
                continue
            # Gradients are summed over replicas, and so are the losses of each.
            loss = loss + weight / backend.num_replicas() * value
        forward.forget()
        return loss


def _words(penalty: Penalty) -> str:
    return f"the penalty `{penalty.name}`"


def step_kinds(intervals: Sequence[int]) -> list[frozenset[int]]:
    """The sets of intervals that may end at the same step.

    A set occurs if it has every interval that divides its least common multiple: it is then
    what ends at that step. The empty one occurs unless 1 is an interval.

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
