"""The train step, and what training needs around it."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import tensorflow as tf

from keras_gbr import _checks as check
from keras_gbr.backend.tensorflow import second_derivatives
from keras_gbr.backend.tensorflow.autodiff import switch
from keras_gbr.backend.tensorflow.replicas import num_replicas
from keras_gbr.training import tensorflow_check_numerics as numerics
from keras_gbr.training import tensorflow_replicas as replicas
from keras_gbr.training.first_step import FirstStep
from keras_gbr.training.step import StatefulTrainer, has_trainable_weights, penalized


def jit_compile(asked: bool | str, penalties: bool, check_numerics: bool) -> bool | str:
    """Whether to compile the steps of `fit` with XLA.

    Args:
        asked: The `jit_compile` of `compile`.
        penalties: Whether there are penalties.
        check_numerics: Whether a number that is not finite shall stop training.

    Returns:
        `asked`, or what it comes to.

    Raises:
        ValueError: What is asked for cannot be.
    """
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


class Trainer(StatefulTrainer):
    """What the backend puts between the `GBRMixin` and `keras.Model`."""

    def penalized_step(self: Any, data: Any) -> dict[str, Any]:
        """One forward pass for the loss and the penalties of this step, one update."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        terms = self._terms
        if tf.executing_eagerly() and terms.penalties and not terms.examined:
            second_derivatives.require_by_tracing(
                lambda: _differentiable(self, x, y, sample_weight)[1]
            )
            terms.examined.add(None)
        state = numerics.state(self) if terms.check_numerics else []
        compute = _gradients if len(terms.kinds) == 1 else _gradients_of_kind
        gradients, values, logs = compute(self, x, y, sample_weight)
        checks = []
        if terms.check_numerics:
            checks = numerics.require_finite(gradients, values, self, state)
        with tf.control_dependencies(checks):
            if has_trainable_weights(self):
                self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return logs

    def make_train_function(self, force: bool = False) -> Any:
        """Compiles the step of `fit`; called by Keras before the first one."""
        replicas.check_training(self)
        if self.train_function is not None and not force:  # type: ignore[has-type]
            return self.train_function  # type: ignore[has-type]
        terms = self._terms  # type: ignore[attr-defined]
        if len(terms.kinds) == 1 or not self._takes_one_step_of_replicas():
            super().make_train_function(force)  # type: ignore[misc]
        else:
            self.train_function = self._train_function_of_kinds()
        if terms.penalties:
            self.train_function = FirstStep(self.train_function, self)
        return self.train_function

    def _takes_one_step_of_replicas(self) -> bool:
        """Whether layers may wait for other replicas, if there is one alone too.

        Several steps in one graph need branches, which Python cannot choose between.
        """
        return replicas.has_strategy(self) and self.steps_per_execution == 1  # type: ignore[attr-defined]

    def _train_function_of_kinds(self) -> Callable[[Any], Any]:
        # Replicas cannot meet in a branch: each kind of step is a graph, and Python chooses.
        terms = self._terms  # type: ignore[attr-defined]

        def step(kind: int, data: Any) -> Any:
            with terms.restricted_to(kind):
                return self.train_step(data)

        functions = [
            self._make_function(functools.partial(step, kind)) for kind in range(len(terms.kinds))
        ]

        def function_of_kinds(data: Any) -> Any:
            step = tf.convert_to_tensor(self.optimizer.iterations.value)  # type: ignore[attr-defined]
            return functions[terms.kind_of(int(step))](data)

        return function_of_kinds

    def make_predict_function(self, force: bool = False) -> Any:
        """Compiles the step of `predict`; called by Keras before the first one."""
        replicas.prepare(self)
        return super().make_predict_function(force)  # type: ignore[misc]

    def _make_function(self, step_function: Callable[[Any], Any]) -> Any:
        return super()._make_function(replicas.with_reducible_logs(step_function))  # type: ignore[misc]

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self._distribute_strategy  # type: ignore[attr-defined]
        if iterator is not None and strategy is not None:
            iterator, data_batch = None, replicas.local_batch(strategy, iterator)
        super()._maybe_symbolic_build(iterator, data_batch)  # type: ignore[misc]
        replicas.prepare(self)


def _gradients(model: Any, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Everything of a step but the update: gradients, what the loss consists of, and logs."""
    with tf.GradientTape() as tape:
        forward, loss, values = _differentiable(model, x, y, sample_weight)
        model._loss_tracker.update_state(loss * num_replicas(), sample_weight=forward.batch_size)
        scaled_loss = model.optimizer.scale_loss(loss)
    with second_derivatives.explained(model) if model.penalties else nullcontext():
        gradients = tape.gradient(scaled_loss, model.trainable_weights)
    logs = model.compute_metrics(x, y, forward.y_pred, sample_weight=sample_weight)
    return gradients, values, logs


def _gradients_of_kind(model: Any, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """As `_gradients`, with the penalties of the kind of this step alone.

    The whole of it is in the branch: a branch with the penalties alone would, in steps without
    them, feed zeros into the gradient of every activation.
    """
    terms = model._terms

    def branch(kind: int) -> tuple[Any, Any, Any]:
        with terms.restricted_to(kind):
            gradients, values, logs = _gradients(model, x, y, sample_weight)
        terms.reached |= {i for i, gradient in enumerate(gradients) if gradient is not None}
        # All branches return the same kinds of tensors.
        pairs = zip(gradients, model.trainable_weights, strict=True)
        dense = [tf.zeros_like(w) if g is None else tf.convert_to_tensor(g) for g, w in pairs]
        return dense, values, logs

    if terms.current is not None:
        gradients, values, logs = branch(terms.current)
    else:
        branches = [functools.partial(branch, kind) for kind in range(len(terms.kinds))]
        gradients, values, logs = switch(terms.traced_kind_of(model.optimizer.iterations), branches)
    return [g if i in terms.reached else None for i, g in enumerate(gradients)], values, logs


def _differentiable(
    model: Any, x: Any, y: Any, sample_weight: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """As `penalized`; in a graph, what has no second derivative is refused."""
    forward, loss, values = penalized(model, x, y, sample_weight)
    if model.penalties and not tf.executing_eagerly():
        second_derivatives.require_second_derivatives(loss, model)
    return forward, loss, values
