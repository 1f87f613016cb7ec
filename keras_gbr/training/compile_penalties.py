"""What a compiled model adds to its loss, and in which steps."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from keras_gbr import backend
from keras_gbr.penalties import Penalty
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.live_numbers import live_names, values_in_step


class PenaltyMetric(keras.metrics.Mean):
    """The mean of the values of a penalty. What others than the penalty put in is ignored.

    A train step of one's own may update all metrics of the model with labels and predictions.
    """

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        pass

    def record(self, value: Any, count: Any) -> None:
        """Adds the value of a penalty on some samples.

        Args:
            value: Scalar tensor.
            count: Their number.
        """
        super().update_state(value, sample_weight=count)


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
        self.metrics = [PenaltyMetric(name=penalty.name) for penalty in penalties]
        # The kinds of step, `None` where there is one, that were looked through for what has no
        # second derivative.
        self.examined: set[int | None] = set()
        # What `check_numerics` looks at, in the order of its findings.
        self.checked: list[str] = []
        # The trainable weights, by number, that steps of some kind have a gradient for.
        self.reached: set[int] = set()
        # Under JAX: the last count of updates with the array that it stands for, and the numbers
        # that a step of one's own was compiled with.
        self.last_count: tuple[Any, int] = (None, 0)
        self.compiled_with: list[float] | None = None
        self._intervals = sorted({penalty.interval for penalty in penalties} - {1})
        self.kinds = step_kinds(self._intervals)
        self._local = threading.local()
        # Whether a step has computed the penalties. One of one's own may forget to.
        self.computed = False
        self._live = [(penalty, name) for penalty in penalties for name in live_names(penalty)]
        self._held = backend.held_numbers(self.live_numbers())
        for penalty in penalties:
            penalty.fix(self._hold)

    def live_numbers(self) -> list[float]:
        """The numbers of the penalties that may change between steps, as they are now."""
        return [float(getattr(penalty, name)) for penalty, name in self._live]

    def _hold(self) -> None:
        """Brings the variables that steps read up to date."""
        for variable, value in zip(self._held, self.live_numbers(), strict=False):
            variable.assign(value)

    def _in_step(self) -> dict[tuple[int, str], Any]:
        """What steps compute with in place of the live numbers."""
        values = getattr(self._local, "values", None) or [v.value for v in self._held]
        keys = [(id(penalty), name) for penalty, name in self._live]
        return dict(zip(keys, values, strict=False))

    @contextmanager
    def with_live_numbers(self, values: Any) -> Iterator[None]:
        """Computes with these values of `live_numbers` inside, in this thread.

        Args:
            values: One scalar tensor each.
        """
        previous, self._local.values = getattr(self._local, "values", None), list(values)
        try:
            yield
        finally:
            self._local.values = previous

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
        points = [penalty.at for penalty in due if penalty.at is not None]
        return ForwardPass(model, x, y, sample_weight, training, parameters, points)

    def add_to(self, loss: Any, forward: ForwardPass, values: dict[str, Any]) -> Any:
        """The loss with the penalties added; updates their metrics and notes the values."""
        self.computed = True
        if isinstance(loss, (int, float)):
            loss = ops.convert_to_tensor(loss, keras.config.floatx())
        values.update({_words(penalty): ops.zeros_like(loss) for penalty in self.penalties})
        with values_in_step(self._in_step()):
            for penalty, metric in self._due():
                part = forward.part(penalty.fraction)
                value = penalty(part)
                if len(value.shape):
                    value = part.sample_mean(value)
                metric.record(value, part.batch_size)
                value = values[_words(penalty)] = ops.cast(value, loss.dtype)
                loss = loss + self._weighted(penalty, value, forward.step)
        forward.forget()
        return loss

    def _weighted(self, penalty: Penalty, value: Any, step: Any) -> Any:
        """What the value of a penalty adds to the loss: nothing where its weight is 0."""
        weight = penalty.weight_at(step)
        if self.current is None and penalty.interval > 1:
            # A train step of one's own has the penalty in every step, here without weight.
            weight = ops.where(ops.equal(step % penalty.interval, 0), weight, 0.0)
        if isinstance(weight, float) and weight == 0.0:
            return ops.zeros_like(value)
        # Gradients are summed over replicas, and so are the losses of each.
        share = ops.cast(weight, value.dtype) / backend.num_replicas()
        return ops.where(share == 0, ops.zeros_like(value), share * value)


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
