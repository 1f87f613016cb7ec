"""The train step under JAX, a function of the state of the model."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_gbr._keras.stateless import NestedStatelessScope
from keras_gbr.training.check_numerics import checked_values, not_finite
from keras_gbr.training.first_step import no_numbers
from keras_gbr.training.step import step_logs, step_loss

# The key of the logs under which a compiled step returns its flags: whether each number is finite.
_FINITE = "check_numerics"


@dataclass
class TrainerState:
    """What the steps of a compiled model note for later ones.

    Attributes:
        checked: The names of what `check_numerics` looks at, in the order of the flags that a
            step returns.
        count: The number of updates so far, if `counted` is the current array of it.
        counted: The array that holds the number of updates, after the last step.
        compiled_numbers: The live numbers that a custom train step was compiled with.
        is_first: Whether the next step is the first one.
    """

    checked: list[str] = field(default_factory=list)
    count: int = 0
    counted: Any = None
    compiled_numbers: list[float] | None = None
    is_first: bool = True


class _State(NamedTuple):
    """Lists of the values of variables, in the order in which Keras passes them on."""

    trainable_variables: list[Any]
    non_trainable_variables: list[Any]
    optimizer_variables: list[Any]
    metrics_variables: list[Any]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["batch", "numbers"], meta_fields=["kind"]
)
@dataclass(frozen=True)
class _StepData:
    """What a step gets: a batch, the live numbers of the penalties, and its kind.

    Each kind of step is a program of its own. As branches of one program, steps would be tens of
    times slower on CPUs, where XLA does not use its fast convolutions inside branches.
    """

    batch: Any
    numbers: list[Any]
    kind: int


def jit_compile(asked: bool | str, penalties: bool, check_numerics: bool) -> bool | str:
    """Decides whether XLA compiles the steps of `fit`, see `trainer`: always as asked."""
    return asked


class Trainer:
    """The steps of a `GBRMixin` model under JAX."""

    def train_step(self: Any, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        """One step of `fit`, see `keras.Model.train_step`.

        Args:
            state: The values of the trainable variables, of the other variables, of the
                optimizer and of the metrics.
            data: The batch.

        Returns:
            The logs and the state after the step.
        """
        if not self._has_own_step:
            return super().train_step(state, data)  # type: ignore[misc]
        if not isinstance(data, _StepData):
            return _train_step(self, _State(*state), data)
        penalties = self._compile_penalties
        restricted = penalties.step_kinds.restricted_to(data.kind)
        with restricted, penalties.live_numbers.replaced_by(data.numbers):
            return _train_step(self, _State(*state), data.batch)

    def test_step(self: Any, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        """One step of `evaluate`, which has no penalties."""
        logs, state = super().test_step(state, data)  # type: ignore[misc]
        return self.without_penalties(logs), state

    def _make_function(
        self: Any, step_function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if self._has_own_step:
            step_function = functools.partial(_run, self, step_function)
        return super()._make_function(step_function, *args, **kwargs)  # type: ignore[misc]


def _train_step(model: Any, state: _State, data: Any) -> tuple[dict[str, Any], Any]:
    """One forward pass for the loss and the penalties, and one update."""
    gradients, values, logs, updated = _gradients(model, state, data)
    trainable, optimizer = model.optimizer.stateless_apply(
        state.optimizer_variables, gradients, state.trainable_variables
    )
    after = _State(trainable, updated[0], optimizer, updated[1])
    if model._check_numerics:
        checked = checked_values(model, gradients, values)
        model._trainer_state.checked = list(checked)
        finite = jnp.stack([jnp.all(jnp.isfinite(value)) for value in checked.values()])
        after = jax.tree.map(functools.partial(jnp.where, jnp.all(finite)), after, state)
        logs = {**logs, _FINITE: finite}
    # On several devices Keras describes the placement of the state as a tuple, not as a `_State`.
    return logs, tuple(after)


def _gradients(model: Any, state: _State, data: Any) -> tuple[Any, ...]:
    """A step without its update.

    Returns:
        The gradients; the parts of the loss by name; the logs; and the values of the non-trainable
        variables and of the metrics after the forward pass.
    """

    def scaled_loss(trainable: list[Any]) -> tuple[Any, Any]:
        before = state._replace(trainable_variables=trainable)
        with NestedStatelessScope(_pairs(model, before), collect_losses=True) as scope:
            loss = step_loss(model, model._compile_penalties, data)
            logs = step_logs(model, data, loss)
            scaled = model.optimizer.scale_loss(loss.total)
        updated = [
            [scope.get_current_value(variable) for variable in variables]
            for variables in (model.non_trainable_variables, model.metrics_variables)
        ]
        return scaled, (loss.values, logs, updated)

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


def _run(model: Any, step: Callable[..., Any], state: Any, data: Any) -> tuple[Any, Any]:
    """Runs a compiled step of any kind and, if a train step fails, restores the model.

    While Keras trains, only the state has the values of the variables.

    Raises:
        FloatingPointError: `check_numerics` has found a number that is not finite.
        ValueError: The gradient of the first step is not finite, while loss and penalties are.
    """
    is_training = len(state) == len(_State._fields)
    is_first = is_training and bool(model.penalties) and model._trainer_state.is_first
    # The step deletes the arrays of the state that it is given.
    before = jax.tree.map(jnp.copy, state) if is_first else state
    try:
        if is_training:
            data = _step_data(model, step, _State(*state), data)
        logs, after = step(state, data)
    except Exception:
        _restore(model, state)
        raise
    if is_first:
        _check_first_step(model, _State(*before), _State(*after), logs)
    if is_training:
        _count(model, _State(*after))
    finite = logs.pop(_FINITE, None) if isinstance(logs, dict) else None
    if finite is None or finite.all():
        return logs, after
    # The step has deleted the state that it was given. The state after it is equal.
    _restore(model, after)
    raise FloatingPointError(not_finite(model._trainer_state.checked[int(jnp.argmin(finite))]))


def _check_first_step(model: Any, before: _State, after: _State, logs: Any) -> None:
    """Undoes the first step if it makes weights NaN or infinite, see `first_step.FirstStep`."""
    model._trainer_state.is_first = False
    changes = zip(
        model.trainable_variables,
        before.trainable_variables,
        after.trainable_variables,
        strict=True,
    )
    ruined = [
        variable.path
        for variable, old, new in changes
        if jnp.isfinite(old).all() and not jnp.isfinite(new).all()
    ]
    if ruined and all(jnp.isfinite(value).all() for value in jax.tree.leaves(logs)):
        _restore(model, before)
        raise no_numbers(ruined)


def _step_data(model: Any, step: Callable[..., Any], state: _State, data: Any) -> Any:
    """The batch, with the kind of the step and the live numbers.

    A custom train step gets only the batch. It has every penalty in every step, with weight 0 if
    the penalty is not due, and is compiled again when a live number has changed.
    """
    penalties = model._compile_penalties
    numbers = penalties.live_numbers.current()
    if type(model).train_step is Trainer.train_step:
        kinds = penalties.step_kinds
        kind = kinds.kind_at(_num_updates(model, state)) if len(kinds) > 1 else 0
        dtype = "float64" if keras.config.floatx() == "float64" else "float32"
        return _StepData(data, [np.asarray(number, dtype) for number in numbers], kind)
    trainer = model._trainer_state
    if trainer.compiled_numbers not in (None, numbers) and hasattr(step, "clear_cache"):
        step.clear_cache()
    trainer.compiled_numbers = numbers
    return data


def _num_updates(model: Any, state: _State) -> int:
    """The number of updates so far.

    It is counted here, because reading it from the device would wait for the step before. It is
    read if the state is not the one that the last step returned, as when training begins.
    """
    optimizer, trainer = model.optimizer, model._trainer_state
    array = _iterations(model, state)
    # A loss scale skips updates when gradients overflow.
    skips = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if array is not trainer.counted or skips:
        trainer.counted, trainer.count = array, int(array)
    return trainer.count // (getattr(optimizer, "gradient_accumulation_steps", None) or 1)


def _count(model: Any, after: _State) -> None:
    """Counts a step, if steps are counted."""
    trainer = model._trainer_state
    if trainer.counted is not None:
        trainer.counted, trainer.count = _iterations(model, after), trainer.count + 1


def _iterations(model: Any, state: _State) -> Any:
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    ids = [id(variable) for variable in model.optimizer.variables]
    return state.optimizer_variables[ids.index(id(optimizer._iterations))]


def _restore(model: Any, state: Any) -> None:
    """Sets the variables to the state of a train step, if its arrays still exist."""
    is_training = len(state) == len(_State._fields)
    if is_training and not any(array.is_deleted() for array in jax.tree.leaves(state)):
        model._jax_state, model._jax_state_synced = _State(*state)._asdict(), False
        model.jax_state_sync()
