"""The compiled loss of each sample alone."""

from typing import Any

import keras
from keras import ops

from keras_gbr import _checks as check
from keras_gbr._keras.masks import mask_of


class _PerSample:
    """A Keras loss that returns one value per sample, whatever its reduction.

    Further axes of the loss (time steps, pixels) are averaged, without masked entries. The value
    of a sample is then the mean loss of a batch of that sample alone.
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        self.loss = _copy(loss)
        self.loss.reduction = "none"
        self.loss.call = self._call
        self._original = loss
        self._mask: Any = None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # Keras puts 0 where the mask of the outputs or that of the loss excludes an entry.
        values = self.loss(y_true, y_pred)
        if len(values.shape) == 0:
            raise ValueError(
                "A penalty on the gradient of the loss, and training on several replicas, need "
                f"the loss of every sample. The loss function {self.loss.name!r} returns one "
                "number for the whole batch. Return the values of the samples, shape "
                "(batch_size,), and leave the mean to Keras. "
                f"Received: loss of shape {tuple(values.shape)}"
            )
        means = _sample_means(values)
        masks = [mask for mask in (mask_of(y_pred), self._mask) if mask is not None]
        if not masks:
            return means
        included = ops.cast(masks[0] if len(masks) == 1 else masks[0] & masks[1], means.dtype)
        return ops.divide_no_nan(means, _sample_means(included))

    def _call(self, y_true: Any, y_pred: Any) -> Any:
        values = self._original.call(y_true, y_pred)
        self._mask = mask_of(values)
        return values


def compiled_loss(model: keras.Model) -> Any:
    """The loss container of a compiled model, a function of labels and outputs, or `None`."""
    return getattr(model, "_compile_loss", None)


def _sample_means(values: Any) -> Any:
    return ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)), axis=1)


def per_sample_losses(compile_loss: Any, y: Any, y_pred: Any) -> Any:
    """The compiled loss of each sample: all outputs, with their loss weights.

    Masked entries of an output do not count, as in the compiled loss. Sample weights, activity
    regularizers and `add_loss` terms are not part of it.

    Args:
        compile_loss: The loss container of a compiled model, which knows the loss of each output.
            It is not changed.
        y: Labels, as `fit` received them.
        y_pred: Outputs of the model.

    Returns:
        Tensor `(batch_size,)`.
    """
    if not compile_loss.built:
        compile_loss.call(y, y_pred)
    unreduced = _copy(compile_loss)
    unreduced._flat_losses = [
        entry._replace(loss=_PerSample(entry.loss)) for entry in compile_loss._flat_losses
    ]
    unreduced._metrics = [None] * len(unreduced._flat_losses)
    with keras.name_scope("compile_loss"):  # the scope that Keras gives the compiled loss
        return unreduced.call(y, y_pred)


def _copy(loss: Any) -> Any:
    """A shallow copy. `copy.copy` would use the configuration, which not every loss has."""
    twin = object.__new__(type(loss))
    vars(twin).update(vars(loss))
    return twin


def require_separate_samples(loss: Any) -> None:
    """Refuses a loss in which the value of a sample depends on the other samples.

    The gradient of such a loss by the input of a sample is not that of the loss of the sample.

    Args:
        loss: The `loss` of `compile`: a string, function or `Loss`, or a structure of them.

    Raises:
        ValueError: It is Keras' circle loss, which compares the samples of a batch.
    """
    for item in keras.tree.flatten(loss):
        found = None if item is None else keras.losses.get(item)
        if found is keras.losses.circle or isinstance(found, keras.losses.Circle):
            raise check.error(
                "A penalty on the gradient of the loss by the input needs a loss of single "
                "samples, and the circle loss compares the samples of a batch. Take "
                "`Jacobian`, which needs no loss, or `ParameterGradient`.",
                "loss",
                item,
            )
