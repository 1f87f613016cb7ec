"""What all penalties share: a weight, a name and a configuration."""

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_gbr import _checks as check
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.live_numbers import LiveNumber


def _weight(name: str, value: Any) -> float | LearningRateSchedule:
    return value if isinstance(value, LearningRateSchedule) else check.number(name, value)


class Penalty:
    """Base of the penalties: adds `weight * value` to the training loss.

    A subclass implements `__call__`. It chooses a scalar function of the outputs, takes its
    gradient from the forward pass, and returns a norm of it.

    Once a model is compiled with it, `weight` can still be set, from a callback too, and counts
    from the next step on, as the learning rate of an optimizer does. The other arguments are
    fixed then.

    Args:
        weight: Float >= 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the number
            of updates. With 0 the value is tracked and training is left as it is; as the weight
            may change, a step costs and needs what it does with another weight.
        interval: Whole number >= 1: the penalty is part of every `interval`-th step alone, the
            first included, with `interval` times its weight ("lazy regularization"). The other
            steps cost what they cost without it, and the metric is the mean over the steps that
            have it.
        fraction: Float in (0, 1]: the penalty is taken on the first samples of each batch, this
            share of them (rounded, at least one). They run through the model once more, alone:
            batch normalisation takes the statistics of the part. On several replicas each
            takes the first samples of its own part of the batch.
        name: Name of the metric that tracks the unweighted value.
        at: Where gradients are taken instead of the inputs: a layer, or its name or path
            ("embedding", "encoder/embedding"), or the name of one of several inputs. See
            `InputPenalty`. A subclass passes it on to the methods of the forward pass.

    Raises:
        ValueError: An argument is out of its range.
        AttributeError: An argument other than `weight` is set after `compile`.

    Example:

    ```python
    class OutputNorm(keras_gbr.Penalty):
        default_name = "output_norm"

        def __call__(self, forward):
            return sum(keras.ops.sum(keras.ops.square(y), axis=-1) for y in forward.outputs)
    ```

    Reference:
        Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix B
        (lazy regularization).
    """

    default_name = "penalty"
    needs_loss = False
    needs_parameters = False
    weight = LiveNumber(_weight)
    _fixed: frozenset[str] = frozenset()

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

    def fix(self, listener: Callable[[], None]) -> None:
        """Makes the arguments read-only, but for live numbers; called by `compile`.

        Args:
            listener: A method that is called when a live number changes. It is not kept alive.
        """
        constructors = [
            vars(cls)["__init__"] for cls in type(self).__mro__ if "__init__" in vars(cls)
        ]
        names = [name for each in constructors for name in inspect.signature(each).parameters]
        vars(self)["_fixed"] = frozenset(names)
        vars(self).setdefault("_listeners", []).append(weakref.WeakMethod(listener))

    def tell_listeners(self) -> None:
        """Calls those who wait for a live number to change."""
        alive = [(ref, ref()) for ref in vars(self).get("_listeners", ())]
        vars(self)["_listeners"] = [ref for ref, listener in alive if listener is not None]
        for _, listener in alive:
            if listener is not None:
                listener()

    def check_assignment(self, name: str, value: Any) -> None:
        """Refuses to change a live number of a compiled penalty to or from a schedule."""
        held = vars(self).get(name)
        if self._fixed and isinstance(held, float) != isinstance(value, float):
            raise check.error(
                f"`{name}` of a compiled penalty stays a number, or stays a schedule. Compile the "
                f"model with another penalty. It was {held!r}.",
                name,
                value,
            )

    def __setattr__(self, name: str, value: Any) -> None:
        is_live = isinstance(getattr(type(self), name, None), LiveNumber)
        if name in self._fixed and not is_live:
            raise AttributeError(
                f"`{name}` of a compiled penalty is read-only; only its weight (of `Adversarial` "
                "its epsilon too) can change while a model trains. Make a new penalty and compile "
                f"the model with it. Received: {name}={value!r}"
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        # A copy belongs to no model yet.
        return {k: v for k, v in vars(self).items() if k not in ("_listeners", "_fixed")}

    def __call__(self, forward: ForwardPass) -> Any:
        """The unweighted value.

        Args:
            forward: The forward pass of the step.

        Returns:
            Tensor `(batch_size,)`, one value a sample, or a scalar tensor.
        """
        raise TypeError(f"{type(self).__name__} must implement `__call__(forward)`.")

    def constants(self, forward: ForwardPass) -> Any:
        """What the value holds constant where its gradient is not its slope.

        A penalty that returns something here takes it as `penalty(forward, constants=...)`, in
        place of what it would compute. `measures.check_penalty` then compares the gradient with
        the slope of the value with these constants.

        Args:
            forward: The forward pass to compute it from.

        Returns:
            A structure of tensors, or `None`.
        """
        return None

    def weight_at(self, step: Any) -> Any:
        """The weight of the value in a step that has it, `interval` times the given one.

        Args:
            step: Scalar integer tensor, the number of updates so far.

        Returns:
            A float, or a scalar tensor.
        """
        if isinstance(self.weight, LearningRateSchedule):
            return self.interval * ops.convert_to_tensor(self.weight(step))
        return self.interval * self.weight

    def get_config(self) -> dict[str, Any]:
        weight = self.weight
        if isinstance(weight, LearningRateSchedule):
            weight = keras.saving.serialize_keras_object(weight)
        return {
            "weight": weight,
            "interval": self.interval,
            "fraction": self.fraction,
            "name": self.name,
            **({} if self.at is None else {"at": self._path()}),
        }

    def _path(self) -> Any:
        return self.at.name if isinstance(self.at, keras.Layer) else self.at

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Penalty":
        weight = config["weight"]
        if isinstance(weight, dict):
            weight = keras.saving.deserialize_keras_object(weight)
        return cls(**{**config, "weight": weight})


class InputPenalty(Penalty):
    """Base of the penalties on gradients with respect to the input.

    Args:
        weight: See `Penalty`, as `name`, `interval` and `fraction`.
        at: What takes the place of the inputs: the output of a layer, such as the embedding of a
            model whose inputs are integers, or one of several inputs. The layer itself, at any
            depth; or its name or path; or the name of the input. The first axis of the output
            must be that of the batch. Several outputs, and several calls of a shared layer, count
            as one vector.
        **kwargs: As `Penalty`.
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
