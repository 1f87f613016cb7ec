"""The penalties of a compiled model and their metrics."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gbr import backend
from keras_gbr.penalties import ForwardPass, Penalty
from keras_gbr.penalties.live_numbers import LiveNumbers
from keras_gbr.training.step_kinds import StepKinds


class PenaltyMetric(keras.metrics.Mean):
    """The mean of the values of a penalty. It ignores updates from elsewhere.

    A custom train step may update all metrics of the model with labels and predictions.
    """

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        pass

    def record(self, value: Any, count: Any) -> None:
        """Adds the value of a penalty.

        Args:
            value: Scalar tensor.
            count: The number of samples that it is the mean over.
        """
        super().update_state(value, sample_weight=count)


class CompilePenalties:
    """The counterpart of Keras' `CompileLoss`: the penalties that a model was compiled with.

    It is a plain object, because Keras keeps tracking every list of metrics that is set on a
    model, and a second `compile` must drop the metrics of the first one.

    Args:
        penalties: Penalties with different names.

    Attributes:
        penalties: The penalties.
        metrics: Their metrics, in the same order.
        step_kinds: Which steps have which penalties.
        live_numbers: The numbers of the penalties that may change between steps.
        computed: Whether a step has computed the penalties. A custom train step may forget to.
    """

    def __init__(self, penalties: Sequence[Penalty]) -> None:
        self.penalties = list(penalties)
        self.metrics = [PenaltyMetric(name=penalty.name) for penalty in penalties]
        self.step_kinds = StepKinds(penalty.interval for penalty in penalties)
        self.live_numbers = LiveNumbers(penalties)
        self.computed = False

    def due(self) -> list[tuple[Penalty, PenaltyMetric]]:
        """The penalties that the current kind of step has, with their metrics."""
        pairs = zip(self.penalties, self.metrics, strict=True)
        return [pair for pair in pairs if self.step_kinds.includes(pair[0].interval)]

    def __call__(self, loss: Any, forward: ForwardPass) -> tuple[Any, dict[str, Any]]:
        """Adds the weighted penalties to a loss and updates their metrics.

        Args:
            loss: Scalar tensor, or a number.
            forward: The forward pass that `loss` comes from.

        Returns:
            The loss with the penalties, and the unweighted value of each penalty by the words
            that name it in errors, 0 for penalties that are not due.
        """
        self.computed = True
        if isinstance(loss, (int, float)):
            loss = ops.convert_to_tensor(loss, keras.config.floatx())
        values = {f"the penalty `{each.name}`": ops.zeros_like(loss) for each in self.penalties}
        with self.live_numbers.read_in_step():
            for penalty, metric in self.due():
                part = forward.part(penalty.fraction)
                value = penalty(part)
                if len(value.shape):
                    value = part.sample_mean(value)
                metric.record(value, part.batch_size)
                value = values[f"the penalty `{penalty.name}`"] = ops.cast(value, loss.dtype)
                loss = loss + self._weighted(penalty, value, forward.step)
        return loss, values

    def _weighted(self, penalty: Penalty, value: Any, step: Any) -> Any:
        """What a penalty adds to the loss, exactly 0 if its weight is 0."""
        weight = penalty.weight_at(step)
        if self.step_kinds.current is None and penalty.interval > 1:
            # A custom train step computes the penalty in every step, with weight 0 if not due.
            weight = ops.where(ops.equal(step % penalty.interval, 0), weight, 0.0)
        if isinstance(weight, float) and weight == 0.0:
            return ops.zeros_like(value)
        # Gradients are summed over replicas, and so are losses.
        share = ops.cast(weight, value.dtype) / backend.num_replicas()
        return ops.where(share == 0, ops.zeros_like(value), share * value)
