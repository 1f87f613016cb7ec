"""The train step, run operation by operation."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import torch

from keras_gbr import _checks as check
from keras_gbr.backend.torch.autodiff import gradients, require_second_derivatives
from keras_gbr.training.check_numerics import checked_values, not_finite
from keras_gbr.training.first_step import no_numbers
from keras_gbr.training.step import StatefulTrainer, has_trainable_weights, penalized


def jit_compile(asked: bool | str, penalties: bool, check_numerics: bool) -> bool | str:
    """Whether to compile the steps of `fit` with `torch.compile`.

    Args:
        asked: The `jit_compile` of `compile`.
        penalties: Whether there are penalties.
        check_numerics: Whether a number that is not finite shall stop training.

    Returns:
        `asked`.

    Raises:
        ValueError: What is asked for cannot be.
    """
    if asked is True and (penalties or check_numerics):
        raise check.error(
            "torch.compile has no second derivatives, which penalties need, and cannot be stopped "
            'by `check_numerics`. Leave `jit_compile` at "auto": steps then run eagerly.',
            "jit_compile",
            asked,
        )
    return asked


class Trainer(StatefulTrainer):
    """What the backend puts between the `GBRMixin` and `keras.Model`."""

    def penalized_step(self: Any, data: Any) -> dict[str, Any]:
        """One forward pass for the loss and the penalties of this step, one update."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        terms, kind = self._terms, None
        if len(terms.kinds) > 1:
            kind = terms.kind_of(int(self.optimizer.iterations.value))
        may_fail = terms.check_numerics or kind not in terms.examined
        with _left_as_it_was(self) if may_fail else nullcontext():
            forward, found = _gradients(self, x, y, sample_weight, kind)
        if has_trainable_weights(self):
            with torch.no_grad():
                self.optimizer.apply(found, self.trainable_weights)
        return self.compute_metrics(x, y, forward.y_pred, sample_weight=sample_weight)


def _gradients(model: Any, x: Any, y: Any, sample_weight: Any, kind: int | None) -> tuple[Any, Any]:
    """The forward pass and the gradients of a step; `kind` where steps differ."""
    terms, weights = model._terms, model.trainable_weights
    with nullcontext() if kind is None else terms.restricted_to(kind):
        forward, loss, values = penalized(model, x, y, sample_weight)
    if terms.penalties and kind not in terms.examined:
        require_second_derivatives(loss, model)
    model._loss_tracker.update_state(loss, sample_weight=forward.batch_size)
    sources = [weight.value for weight in weights]
    found = gradients([model.optimizer.scale_loss(loss)], sources, retain_graph=False)
    # Under loss scaling gradients may overflow, and the optimizer skips the step.
    may_overflow = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    is_looked_at = terms.penalties and not terms.check_numerics and not may_overflow
    if is_looked_at and kind not in terms.examined:
        _require_numbers(loss, found, weights)
    terms.examined.add(kind)
    if kind is not None:
        found = _with_zeros(terms, found, weights)
    if terms.check_numerics:
        _require_finite(model, found, values)
    return forward, found


def _require_numbers(loss: Any, found: list[Any], weights: list[Any]) -> None:
    """Refuses gradients that are not finite where the loss with its penalties is."""
    pairs = zip(found, weights, strict=True)
    names = [w.path for g, w in pairs if g is not None and not torch.isfinite(g).all()]
    if names and torch.isfinite(loss).all():
        raise no_numbers(names)


def _with_zeros(terms: Any, found: list[Any], weights: list[Any]) -> list[Any]:
    """Gradients that are zero where a step of another kind has one: momentum goes on."""
    terms.reached |= {i for i, gradient in enumerate(found) if gradient is not None}
    return [
        torch.zeros_like(weight.value) if gradient is None and i in terms.reached else gradient
        for i, (gradient, weight) in enumerate(zip(found, weights, strict=True))
    ]


@contextmanager
def _left_as_it_was(model: Any) -> Iterator[None]:
    """Undoes what a forward pass itself changes, such as moving averages, where a step fails."""
    before = [(v, v.value.detach().clone()) for v in model.non_trainable_variables]
    try:
        yield
    except Exception:
        for variable, old in before:
            variable.assign(old)
        raise


def _require_finite(model: Any, found: list[Any], values: dict[str, Any]) -> None:
    """Ends training at a number that is not finite."""
    for name, value in checked_values(model, found, values).items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            raise FloatingPointError(not_finite(name))
