"""The train step under PyTorch, which runs operation by operation."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import keras
import torch

from keras_gbr import _checks as check
from keras_gbr.backend.torch.autodiff import gradients, require_second_derivatives
from keras_gbr.training.check_numerics import checked_values, not_finite
from keras_gbr.training.first_step import no_numbers
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
        examined: The kinds of step that have run. The first step of a kind is checked for missing
            second derivatives.
        reached: The indices of the trainable weights that some kind of step has a gradient for.
    """

    examined: set[int] = field(default_factory=set)
    reached: set[int] = field(default_factory=set)


def jit_compile(asked: bool | str, penalties: bool, check_numerics: bool) -> bool | str:
    """Decides whether `torch.compile` compiles the steps of `fit`, see `trainer`."""
    if asked is True and (penalties or check_numerics):
        raise check.error(
            "torch.compile has no second derivatives, which penalties need, and cannot be stopped "
            'by `check_numerics`. Leave `jit_compile` at "auto": steps then run eagerly.',
            "jit_compile",
            asked,
        )
    return asked


class Trainer:
    """The steps of a `GBRMixin` model under PyTorch."""

    def train_step(self: Any, data: Any) -> dict[str, Any]:
        """One step of `fit`, see `keras.Model.train_step`."""
        if not self._has_own_step:
            return super().train_step(data)  # type: ignore[misc]
        kinds, kind = self._compile_penalties.step_kinds, 0
        if len(kinds) > 1:
            kind = kinds.kind_at(int(self.optimizer.iterations.value))
        is_first = kind not in self._trainer_state.examined
        undo = _undone_if_it_fails(self) if is_first or self._check_numerics else nullcontext()
        with undo, kinds.restricted_to(kind):
            loss, found = _gradients(self, data, is_first)
        self._trainer_state.examined.add(kind)
        if has_trainable_weights(self):
            with torch.no_grad():
                self.optimizer.apply(found, self.trainable_weights)
        return step_logs(self, data, loss)

    def test_step(self: Any, data: Any) -> dict[str, Any]:
        """One step of `evaluate`, which has no penalties."""
        return self.without_penalties(super().test_step(data))  # type: ignore[misc]


def _gradients(model: Any, data: Any, is_first: bool) -> tuple[StepLoss, list[Any]]:
    """The loss of a step and its checked gradients. `is_first`: no step of its kind has run."""
    weights = model.trainable_weights
    loss = step_loss(model, model._compile_penalties, data)
    if model.penalties and is_first:
        require_second_derivatives(loss.total, model)
    sources = [weight.value for weight in weights]
    found = gradients([model.optimizer.scale_loss(loss.total)], sources, retain_graph=False)
    # Under loss scaling gradients may overflow. The optimizer then skips the step.
    may_overflow = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    if model.penalties and is_first and not may_overflow and not model._check_numerics:
        _require_numbers(loss.total, found, weights)
    if len(model._compile_penalties.step_kinds) > 1:
        found = _with_zeros(model._trainer_state.reached, found, weights)
    if model._check_numerics:
        for name, value in checked_values(model, found, loss.values).items():
            if not torch.isfinite(torch.as_tensor(value)).all():
                raise FloatingPointError(not_finite(name))
    return loss, found


def _require_numbers(loss: Any, found: list[Any], weights: list[Any]) -> None:
    """Refuses gradients that are not finite although the loss with its penalties is."""
    pairs = zip(found, weights, strict=True)
    names = [w.path for g, w in pairs if g is not None and not torch.isfinite(g).all()]
    if names and torch.isfinite(loss).all():
        raise no_numbers(names)


def _with_zeros(reached: set[int], found: list[Any], weights: list[Any]) -> list[Any]:
    """Replaces missing gradients by zeros where another kind of step has one.

    The optimizer then applies its momentum in every step.
    """
    reached |= {i for i, gradient in enumerate(found) if gradient is not None}
    return [
        torch.zeros_like(weight.value) if gradient is None and i in reached else gradient
        for i, (gradient, weight) in enumerate(zip(found, weights, strict=True))
    ]


@contextmanager
def _undone_if_it_fails(model: Any) -> Iterator[None]:
    """Restores what a forward pass itself updates, such as moving averages, after an error."""
    before = [(v, v.value.detach().clone()) for v in model.non_trainable_variables]
    try:
        yield
    except Exception:
        for variable, old in before:
            variable.assign(old)
        raise
