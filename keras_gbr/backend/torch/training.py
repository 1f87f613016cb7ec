"""The train step, run operation by operation."""

from contextlib import nullcontext
from typing import Any

import keras
import torch

from keras_gbr import _validation as check
from keras_gbr.backend.finite import checked_values, not_finite
from keras_gbr.backend.steps import StatefulTrainer, penalized
from keras_gbr.backend.torch.autodiff import gradients, require_second_derivatives


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
        raise check.fail(
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
        terms, weights = self._terms, self.trainable_weights
        before = _state(self) if terms.check_numerics else []
        several = len(terms.kinds) > 1
        kind = terms.kind_of(int(self.optimizer.iterations.value)) if several else 0
        with terms.restricted_to(kind) if several else nullcontext():
            forward, loss, values = penalized(self, x, y, sample_weight)
        if terms.penalties and kind not in terms.examined:
            require_second_derivatives(loss, self)
            terms.examined.add(kind)
        self._loss_tracker.update_state(loss, sample_weight=forward.batch_size)
        found = gradients(
            [self.optimizer.scale_loss(loss)],
            [weight.value for weight in weights],
            retain_graph=False,
        )
        if several:
            found = _with_zeros(terms, found, weights)
        if terms.check_numerics:
            _require_finite(self, found, values, before)
        with torch.no_grad():
            self.optimizer.apply(found, weights)
        return self.compute_metrics(x, y, forward.y_pred, sample_weight=sample_weight)


def _with_zeros(terms: Any, found: list[Any], weights: list[Any]) -> list[Any]:
    """Gradients that are zero where a step of another kind has one: momentum goes on."""
    terms.reached |= {i for i, gradient in enumerate(found) if gradient is not None}
    return [
        torch.zeros_like(weight.value) if gradient is None and i in terms.reached else gradient
        for i, (gradient, weight) in enumerate(zip(found, weights, strict=True))
    ]


def _state(model: Any) -> list[tuple[Any, Any]]:
    """The variables that a forward pass itself may change, with their values."""
    return [(v, v.value.detach().clone()) for v in model.non_trainable_variables]


def _require_finite(
    model: Any, found: list[Any], values: dict[str, Any], before: list[tuple[Any, Any]]
) -> None:
    """Ends training, with the model as it was, at a number that is not finite."""
    for name, value in checked_values(model, found, values).items():
        if not torch.isfinite(torch.as_tensor(value)).all():
            for variable, old in before:
                variable.assign(old)
            raise FloatingPointError(not_finite(name))
