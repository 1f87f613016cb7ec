"""What all penalties share: a weight, a name and a configuration."""

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_gbr import _checks as check
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.live_numbers import FixedWhenCompiled, LiveNumber


def _weight(name: str, value: Any) -> float | LearningRateSchedule:
    return value if isinstance(value, LearningRateSchedule) else check.number(name, value)


class Penalty(FixedWhenCompiled):
    r'''Base of the penalties: adds `weight * value` to the training loss.

    Once a model is compiled with a penalty, `weight` can still be set, by a callback for example,
    and counts from the next step on, as the learning rate of an optimizer does. The other
    arguments are then fixed.

    **Developing new penalties.** A subclass implements `__call__`, which gets the `ForwardPass` of
    the step and returns the unweighted value: one number per sample, `(batch_size,)`, or a scalar.
    It usually chooses a function of the outputs, takes its gradient from the forward pass, and
    returns a norm of it. The class also

    - sets `default_name`, the name of the metric that tracks the value;
    - sets `needs_loss = True` if it uses `forward.losses`, and `needs_parameters = True` if it
      calls `forward.parameter_gradients`;
    - passes `self.at` to the methods of the forward pass, to support `at`;
    - passes `interval`, `fraction`, `name` and `at` to `super().__init__`, usually by `**kwargs`.
      The train step does the rest: it calls the penalty in the steps that have it, with the pass
      on the part of the batch that `fraction` asks for;
    - returns its own arguments from `get_config` too, and is registered with
      `keras.saving.register_keras_serializable`, so that compiled models can be saved. The
      arguments must be plain Python values.

    The value must be differentiable with respect to the weights. `measures.check_penalty` compares
    its gradient with finite differences.

    Args:
        weight: Float >= 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the number
            of updates. With 0 the value is tracked and training stays as it is without the
            penalty. A step then costs as much, and has the same requirements, as with any other
            weight, because the weight may be set later.
        interval: Whole number >= 1. The penalty is part of every `interval`-th step, the first
            included, with `interval` times its weight ("lazy regularization"). The other steps
            cost as much as without the penalty. The metric is the mean over the steps with it.
        fraction: Float in (0, 1]. The penalty is taken on the first samples of each batch, this
            share of them (rounded, at least one). They run through the model a second time,
            alone; batch normalisation takes the statistics of the part. On several replicas each
            takes the first samples of its own part of the batch.
        name: Name of the metric that tracks the unweighted value.
        at: What takes the place of the inputs: the output of a layer, such as the embedding of a
            model whose inputs are integers, or one of several inputs. Give the layer itself, its
            name or its path ("embedding", "encoder/embedding"); or the name of the input. The
            layer may be at any depth. The first axis of its output must be that of the batch.
            Several outputs, and several calls of a shared layer, count as one vector.

    Raises:
        ValueError: An argument is out of its range.
        AttributeError: An argument other than `weight` is set after `compile`.

    Example:

    ```python
    import keras
    import keras_gbr
    from keras import ops


    @keras.saving.register_keras_serializable("my_package")
    class EntropyGradient(keras_gbr.Penalty):
        """Penalises the gradient of the entropy of the predicted probabilities."""

        default_name = "entropy_gradient"

        def __init__(self, weight, temperature=1.0, **kwargs):
            super().__init__(weight, **kwargs)
            self.temperature = temperature

        def __call__(self, forward):
            gradients = forward.input_gradients(self.entropies, self.at)
            rows = [ops.reshape(g, (ops.shape(g)[0], -1)) for g in gradients]
            return sum(ops.sum(ops.square(row), axis=1) for row in rows)

        def entropies(self, forward, y_pred):
            """The function of the outputs: one number per sample."""
            probabilities = ops.softmax(y_pred / self.temperature)
            return -ops.sum(probabilities * ops.log(probabilities), axis=-1)

        def get_config(self):
            return {**super().get_config(), "temperature": self.temperature}


    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(10, 4, name="embedding")(inputs)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    model = keras_gbr.GBRModel(inputs, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    penalty = EntropyGradient(0.1, temperature=2.0, at="embedding", interval=2, fraction=0.5)
    model.compile("sgd", loss, penalties=[penalty])
    ```

    Reference:
        Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix B
        (lazy regularization), https://arxiv.org/abs/1912.04958.
    '''

    default_name = "penalty"
    needs_loss = False
    needs_parameters = False
    weight = LiveNumber(_weight)

    def __init__(
        self,
        weight: float | LearningRateSchedule,
        interval: int = 1,
        fraction: float = 1.0,
        name: str | None = None,
        at: str | keras.Layer | None = None,
    ) -> None:
        self.weight = weight
        if name is not None and not (isinstance(name, str) and name):
            raise check.error("`name` must be a non-empty string or None.", "name", name)
        self.name = name or self.default_name
        self.interval = check.integer("interval", interval)
        self.fraction = check.number("fraction", fraction, exclusive=True)
        if self.fraction > 1:
            raise check.error("`fraction` must be in (0, 1].", "fraction", fraction)
        if not (at is None or isinstance(at, keras.Layer) or (isinstance(at, str) and at)):
            raise check.error(
                "`at` must be a layer, its name or path, the name of an input, or None.", "at", at
            )
        self.at = at

    def __call__(self, forward: ForwardPass) -> Any:
        """The unweighted value.

        Args:
            forward: The forward pass of the step.

        Returns:
            Tensor `(batch_size,)`, one value per sample, or a scalar tensor.
        """
        raise TypeError(f"{type(self).__name__} must implement `__call__(forward)`.")

    def constants(self, forward: ForwardPass) -> Any:
        """Tensors that the value holds constant by `ops.stop_gradient`, by default none.

        The gradient of a penalty with constants is not the slope of its value. The penalty must
        take its constants back, as `penalty(forward, constants=...)`, and use them instead of
        computing its own. `measures.check_penalty` then compares the gradient with the slope of
        the value at these constants.

        Args:
            forward: The forward pass to compute them from.

        Returns:
            A structure of tensors, or `None`.
        """
        return None

    def weight_at(self, step: Any) -> Any:
        """The weight in a step that has the penalty: `interval` times the given one.

        Args:
            step: Scalar integer tensor, the number of updates so far.

        Returns:
            A float, or a scalar tensor if the weight changes.
        """
        if isinstance(self.weight, LearningRateSchedule):
            return self.interval * ops.convert_to_tensor(self.weight(step))
        return self.interval * self.weight

    def get_config(self) -> dict[str, Any]:
        weight = self.weight
        if isinstance(weight, LearningRateSchedule):
            weight = keras.saving.serialize_keras_object(weight)
        at = self.at.name if isinstance(self.at, keras.Layer) else self.at
        return {
            "weight": weight,
            "interval": self.interval,
            "fraction": self.fraction,
            "name": self.name,
            **({} if at is None else {"at": at}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Penalty":
        weight = config["weight"]
        if isinstance(weight, dict):
            weight = keras.saving.deserialize_keras_object(weight)
        return cls(**{**config, "weight": weight})


class InputPenalty(Penalty):
    """Base of the penalties on gradients with respect to the input.

    Args:
        weight: See `Penalty`.
        at: See `Penalty`.
        **kwargs: `interval`, `fraction` and `name`, see `Penalty`.
    """

    def __init__(
        self,
        weight: float | LearningRateSchedule,
        at: str | keras.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, at=at, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {"at": None, **super().get_config()}
