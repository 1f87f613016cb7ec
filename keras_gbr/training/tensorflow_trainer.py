"""The train step under TensorFlow."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from keras_gbr import _checks as check
from keras_gbr.backend.tensorflow import second_derivatives
from keras_gbr.backend.tensorflow.autodiff import switch
from keras_gbr.training import tensorflow_check_numerics as numerics
from keras_gbr.training import tensorflow_replicas as replicas
from keras_gbr.training.first_step import FirstStep
from keras_gbr.training.step import (
    StepLoss,
    has_trainable_weights,
    step_logs,
    step_loss,
)


@dataclass
class TrainerState:
    """What the steps of a compiled model note for later ones.

    Attributes:
        is_examined: Whether an eager step was checked for missing second derivatives.
        reached: The indices of the trainable weights that some kind of step has a gradient for.
    """

    is_examined: bool = False
    reached: set[int] = field(default_factory=set)


def jit_compile(asked: bool | str, penalties: bool, check_numerics: bool) -> bool | str:
    """Decides whether XLA compiles the steps of `fit`, see `trainer`."""
    if not check_numerics:
        return asked
    if asked is True:
        raise check.error(
            'XLA drops the checks of `check_numerics`. Leave `jit_compile` at "auto", or leave '
            "out `check_numerics`.",
            "jit_compile",
            asked,
        )
    return False


class Trainer:
    """The steps of a `GBRMixin` model under TensorFlow."""

    def train_step(self: Any, data: Any) -> dict[str, Any]:
        """One step of `fit`, see `keras.Model.train_step`."""
        if not self._has_own_step:
            return super().train_step(data)  # type: ignore[misc]
        if tf.executing_eagerly() and self.penalties and not self._trainer_state.is_examined:
            second_derivatives.require_by_tracing(lambda: _examined_loss(self, data).total)
            self._trainer_state.is_examined = True
        before = numerics.state(self) if self._check_numerics else []
        has_kinds = len(self._compile_penalties.step_kinds) > 1
        gradients, values, logs = (_gradients_of_kind if has_kinds else _gradients)(self, data)
        checks = []
        if self._check_numerics:
            checks = numerics.require_finite(gradients, values, self, before)
        with tf.control_dependencies(checks):
            if has_trainable_weights(self):
                self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return logs

    def test_step(self: Any, data: Any) -> dict[str, Any]:
        """One step of `evaluate`, which has no penalties."""
        return self.without_penalties(super().test_step(data))  # type: ignore[misc]

    def make_train_function(self: Any, force: bool = False) -> Any:
        """Compiles the step of `fit`; called by Keras before the first one."""
        replicas.check_training(self)
        if self.train_function is not None and not force:
            return self.train_function
        has_kinds = len(self._compile_penalties.step_kinds) > 1
        # Layers may wait for other replicas, which is impossible in a branch. Each kind of step is
        # then a graph, and Python chooses, unless several steps are in one graph.
        if has_kinds and replicas.has_strategy(self) and self.steps_per_execution == 1:
            self.train_function = _function_by_kind(self)
        else:
            super().make_train_function(force)  # type: ignore[misc]
        if self.penalties:
            self.train_function = FirstStep(self.train_function, self)
        return self.train_function

    def make_predict_function(self: Any, force: bool = False) -> Any:
        """Compiles the step of `predict`; called by Keras before the first one."""
        replicas.prepare(self)
        return super().make_predict_function(force)  # type: ignore[misc]

    def _make_function(self: Any, step_function: Callable[[Any], Any]) -> Any:
        return super()._make_function(replicas.with_reducible_logs(step_function))  # type: ignore[misc]

    def _maybe_symbolic_build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self._distribute_strategy
        if iterator is not None and strategy is not None:
            iterator, data_batch = None, replicas.local_batch(strategy, iterator)
        super()._maybe_symbolic_build(iterator, data_batch)  # type: ignore[misc]
        replicas.prepare(self)


def _function_by_kind(model: Any) -> Callable[[Any], Any]:
    """A train function that runs one of several graphs, by the kind of the step."""
    kinds = model._compile_penalties.step_kinds

    def step(kind: int, data: Any) -> Any:
        with kinds.restricted_to(kind):
            return model.train_step(data)

    functions = [model._make_function(functools.partial(step, kind)) for kind in range(len(kinds))]

    def function(data: Any) -> Any:
        step = tf.convert_to_tensor(model.optimizer.iterations.value)
        return functions[kinds.kind_at(int(step))](data)

    return function


def _gradients(model: Any, data: Any) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """A step without its update: the gradients, the parts of the loss by name, and the logs."""
    with tf.GradientTape() as tape:
        loss = _examined_loss(model, data)
        scaled_loss = model.optimizer.scale_loss(loss.total)
    with second_derivatives.explained(model) if model.penalties else nullcontext():
        gradients = tape.gradient(scaled_loss, model.trainable_weights)
    return gradients, loss.values, step_logs(model, data, loss)


def _gradients_of_kind(model: Any, data: Any) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """As `_gradients`, with the penalties of the current kind of step.

    All of it is in a branch. If only the penalties were, steps without them would add zeros to
    the gradient of every activation.
    """
    kinds, reached = model._compile_penalties.step_kinds, model._trainer_state.reached

    def branch(kind: int) -> tuple[Any, Any, Any]:
        with kinds.restricted_to(kind):
            gradients, values, logs = _gradients(model, data)
        reached.update(i for i, gradient in enumerate(gradients) if gradient is not None)
        # All branches must return the same tensors: dense ones, zeros for missing ones.
        pairs = zip(gradients, model.trainable_weights, strict=True)
        dense = [tf.zeros_like(w) if g is None else tf.convert_to_tensor(g) for g, w in pairs]
        return dense, values, logs

    if kinds.current is not None:
        gradients, values, logs = branch(kinds.current)
    else:
        branches = [functools.partial(branch, kind) for kind in range(len(kinds))]
        gradients, values, logs = switch(kinds.traced_kind_at(model.optimizer.iterations), branches)
    return [g if i in reached else None for i, g in enumerate(gradients)], values, logs


def _examined_loss(model: Any, data: Any) -> StepLoss:
    """The loss of a step. In a graph, missing second derivatives are refused."""
    loss = step_loss(model, model._compile_penalties, data)
    if model.penalties and not tf.executing_eagerly():
        second_derivatives.require_second_derivatives(loss.total, model)
    return loss
