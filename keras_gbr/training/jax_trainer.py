"""The train step, a function of the state of the model."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_gbr._keras.stateless import Sandbox
from keras_gbr.training.check_numerics import checked_values, not_finite
from keras_gbr.training.step import penalized

# The key of the logs that hold what was found finite.
_FINITE = "check_numerics"


class _State(NamedTuple):
    """Lists of the values of variables, in the order in which Keras passes them on."""

    trainable_variables: list[Any]
    non_trainable_variables: list[Any]
    optimizer_variables: list[Any]
    metrics_variables: list[Any]


def jit_compile(asked: bool | str, penalties: bool, check_numerics: bool) -> bool | str:
    """Whether to compile the steps of `fit`: as `asked`."""
    return asked


class Trainer:
    """What the backend puts between the `GBRMixin` and `keras.Model`."""

    def train_step(self, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        """One step of `fit`, see `keras.Model.train_step`.

        Args:
            state: The values of the trainable variables, the others, those of the optimizer and
                of the metrics.
            data: The batch.

        Returns:
            The logs and the state after the step.
        """
        terms = self._terms  # type: ignore[attr-defined]
        if terms.penalties or terms.check_numerics:
            return _train_step(self, _State(*state), data)
        return super().train_step(state, data)  # type: ignore[misc]

    def test_step(self, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        """One step of `evaluate`; the penalties are no part of it."""
        logs, state = super().test_step(state, data)  # type: ignore[misc]
        return self.without_penalties(logs), state  # type: ignore[attr-defined]

    def _make_function(self, step_function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._terms.penalties or self._terms.check_numerics:  # type: ignore[attr-defined]
            step_function = functools.partial(_run, self, step_function)
        return super()._make_function(step_function, *args, **kwargs)  # type: ignore[misc]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["batch", "numbers"], meta_fields=["kind"]
)
@dataclasses.dataclass(frozen=True)
class _Step:
    """What a step gets: a batch, the live numbers of the penalties, and its kind.

    Each kind is a program of its own. As branches of one, they would be tens of times slower on
    CPUs, where XLA gives up its fast convolutions inside of branches.
    """

    batch: Any
    numbers: list[Any]
    kind: int


def _train_step(model: Any, state: _State, data: Any) -> tuple[dict[str, Any], Any]:
    """One forward pass for the loss and the penalties of this step, one update."""
    terms = model._terms
    if isinstance(data, _Step):
        with terms.restricted_to(data.kind), terms.with_live_numbers(data.numbers):
            gradients, values, logs, updated = _gradients(model, state, data.batch)
    else:
        gradients, values, logs, updated = _gradients(model, state, data)
    trainable, optimizer = model.optimizer.stateless_apply(
        state.optimizer_variables, gradients, state.trainable_variables
    )
    after = _State(trainable, updated[0], optimizer, updated[1])
    if terms.check_numerics:
        flags = _finite(model, gradients, values)
        found = jnp.stack(list(flags.values()))
        terms.checked = list(flags)
        after = jax.tree.map(functools.partial(jnp.where, jnp.all(found)), after, state)
        logs = {**logs, _FINITE: found}
    # Keras gives a tuple for the places of the state on several devices.
    return logs, tuple(after)


def _gradients(model: Any, state: _State, data: Any) -> tuple[Any, ...]:
    """Everything of a step but the update.

    Returns:
        The gradients, what the loss consists of, the logs, and the values of the non-trainable
        variables and of those of the metrics after the forward pass.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)

    def scaled_loss(trainable: list[Any]) -> tuple[Any, Any]:
        before = state._replace(trainable_variables=trainable)
        with Sandbox(_pairs(model, before), collect_losses=True) as sandbox:
            forward, loss, values = penalized(model, x, y, sample_weight)
            model._loss_tracker.update_state(loss, sample_weight=forward.batch_size)
            logs = model.compute_metrics(x, y, forward.y_pred, sample_weight=sample_weight)
            scaled = model.optimizer.scale_loss(loss)
        updated = [
            [sandbox.get_current_value(variable) for variable in variables]
            for variables in (model.non_trainable_variables, model.metrics_variables)
        ]
        return scaled, (values, logs, updated)

    gradients, (values, logs, updated) = jax.grad(scaled_loss, has_aux=True)(
        state.trainable_variables
    )
    return gradients, values, logs, updated


def _pairs(model: Any, state: _State) -> list[tuple[keras.Variable, Any]]:
    """The variables of a model with their values."""
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return [
        pair
        for group, values in zip(groups, state, strict=True)
        for pair in zip(group, values, strict=True)
    ]


def _finite(model: Any, gradients: list[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Whether each number that a step hangs on is finite, by what it is."""
    return {
        name: jnp.all(jnp.isfinite(value))
        for name, value in checked_values(model, gradients, values).items()
    }


def _run(model: Any, step: Callable[..., Any], state: Any, data: Any) -> tuple[Any, Any]:
    """A step that leaves the model as it was where it fails.

    While Keras trains, the variables are empty and their values are in the state alone.

    Raises:
        FloatingPointError: The step has found a number that is not finite.
    """
    is_training = len(state) == len(_State._fields)
    try:
        if is_training:
            data = _step_data(model, step, _State(*state), data)
        logs, after = step(state, data)
    except Exception:
        _give_back(model, state)
        raise
    if is_training:
        _count(model, _State(*after))
    found = logs.pop(_FINITE, None) if isinstance(logs, dict) else None
    if found is None or found.all():
        return logs, after
    # The state before the step was given away to it; this is an equal one.
    _give_back(model, after)
    raise FloatingPointError(not_finite(model._terms.checked[int(jnp.argmin(found))]))


def _step_data(model: Any, step: Callable[..., Any], state: _State, data: Any) -> Any:
    """The batch, with the kind of the step and the numbers that it takes.

    A train step of one's own would not know what that is. It has every penalty in every step,
    without weight where it is not due, and is compiled anew where a number has changed.
    """
    terms = model._terms
    numbers = terms.live_numbers()
    if type(model).train_step is Trainer.train_step:
        kind = terms.kind_of(_updates(model, state)) if len(terms.kinds) > 1 else 0
        dtype = "float64" if keras.config.floatx() == "float64" else "float32"
        return _Step(data, [np.asarray(number, dtype) for number in numbers], kind)
    if terms.compiled_with not in (None, numbers) and hasattr(step, "clear_cache"):
        step.clear_cache()
    terms.compiled_with = numbers
    return data


def _updates(model: Any, state: _State) -> int:
    """The number of updates so far.

    It is counted here: to read it from the device would wait there for the step before. It is
    read where the state is not the one that the last step has returned, as when training begins.
    """
    optimizer = model.optimizer
    array = _iterations(model, state)
    last, count = model._terms.last_count
    # A loss scale skips updates where gradients overflow.
    if array is not last or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        count = int(array)
    model._terms.last_count = (array, count)
    return count // (getattr(optimizer, "gradient_accumulation_steps", None) or 1)


def _count(model: Any, after: _State) -> None:
    """Notes that a step is done."""
    last, count = model._terms.last_count
    if last is not None:
        model._terms.last_count = (_iterations(model, after), count + 1)


def _iterations(model: Any, state: _State) -> Any:
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    ids = [id(variable) for variable in model.optimizer.variables]
    return state.optimizer_variables[ids.index(id(optimizer._iterations))]


def _give_back(model: Any, state: Any) -> None:
    """Gives the variables the values of the state of a train step, if they are there."""
    is_training = len(state) == len(_State._fields)
    if is_training and not any(array.is_deleted() for array in jax.tree.leaves(state)):
        model._jax_state, model._jax_state_synced = _State(*state)._asdict(), False
        model.jax_state_sync()
