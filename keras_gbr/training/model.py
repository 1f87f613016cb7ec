"""Models that train with penalties."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr import backend
from keras_gbr._keras.evaluation import EvaluatesLess
from keras_gbr._keras.per_sample_losses import compiled_loss, per_sample_losses
from keras_gbr._keras.saved_config import portable
from keras_gbr.penalties import ForwardPass, Penalty
from keras_gbr.training.compile_arguments import (
    CompileArguments,
    checked_penalties,
    loadable,
    require_loss,
    require_metrics,
    show_signature,
    signature_over,
)
from keras_gbr.training.compile_penalties import CompilePenalties
from keras_gbr.training.first_step import warns_without_penalties
from keras_gbr.training.trainer import Trainer, TrainerState, jit_compile


class GBRMixin(EvaluatesLess, Trainer):
    """Adds `compile(penalties=[...])` to a `keras.Model`: `class Net(GBRMixin, keras.Model)`.

    `fit` then minimises the compiled loss plus the weighted penalties. Each step runs the model
    once and takes the loss and every penalty from that pass. A metric under the name of each
    penalty tracks its unweighted value. `evaluate` and `predict` are those of Keras; the loss of
    `evaluate` has no penalties. A penalty on an operation without a second derivative, such as
    bilinear resizing, is refused before the first step.

    Under `tf.distribute.MirroredStrategy` and `MultiWorkerMirroredStrategy` a step equals that of
    one replica on the whole batch, if the batch divides evenly. In an incomplete last batch every
    replica counts alike, not every sample: drop it (`drop_remainder=True`). Settings that Keras
    gets wrong on several replicas are refused.

    Without penalties and `check_numerics` a step is Keras' own. A subclass that overrides
    `train_step` must compute the penalties itself, see `penalized_loss`. A subclass that overrides
    `compute_loss` keeps them: they are added to what it returns.

    Example:

    ```python
    class Net(keras_gbr.GBRMixin, keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(10)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model.compile("sgd", "mse", penalties=[keras_gbr.Jacobian(0.01)])
    ```
    """

    _compile_penalties = CompilePenalties([])
    _trainer_state: TrainerState
    _check_numerics = False
    # Whether a step of `fit` does more than Keras' own step.
    _has_own_step = False
    # The argument of `compile`. "auto" means different things under different backends.
    _asked_jit_compile: bool | str = "auto"

    def compile(
        self,
        *args: Any,
        penalties: Sequence[Penalty] | None = None,
        check_numerics: bool = False,
        **kwargs: Any,
    ) -> None:
        """Configures the model for training.

        Args:
            *args: As `keras.Model.compile`, or as the `compile` of the class behind the mixin.
            penalties: A list of penalties: `Jacobian`, `InputGradient`, `ParameterGradient`,
                `Adversarial`, or others. Two of the same class need different names (`name=`).
            check_numerics: Whether `fit` stops with an error when the loss, a penalty or a
                gradient is NaN or infinite. The error names it, and the step changes no weight.
                Under loss scaling (float16) gradients may overflow: the optimizer skips the step,
                without an error. TensorFlow's XLA drops the check: `jit_compile="auto"` then means
                without XLA. (`keras.callbacks.TerminateOnNaN` ends training after the step.)
            **kwargs: As `args`.

        Raises:
            ValueError: `penalties` is not a list of penalties, two have the same name, or one
                needs a loss and none is given; or `jit_compile=True` asks for steps that the
                backend cannot compile: with `check_numerics` under TensorFlow, with
                `check_numerics` or penalties under PyTorch. The model is then left as it was.
                Also if `metrics` of the class leaves out those of the penalties, which shows only
                once the model is compiled.
        """
        checked = checked_penalties(penalties)
        check.boolean("check_numerics", check_numerics)
        arguments = CompileArguments(super().compile, *args, **kwargs)
        asked = arguments.get("jit_compile", "auto")
        resolved = jit_compile(asked, bool(checked), check_numerics)
        if resolved != asked:
            arguments.set_jit_compile(resolved)
        if arguments.takes("loss"):
            require_loss(checked, arguments.get("loss"))
        arguments.call()
        require_loss(checked, compiled_loss(self))
        self._compile_penalties = CompilePenalties(checked)
        self._trainer_state = TrainerState()
        self._check_numerics, self._asked_jit_compile = check_numerics, asked
        self._has_own_step = bool(checked) or check_numerics
        require_metrics(self, self._compile_penalties.metrics)

    compile.__signature__ = signature_over(keras.Model.compile)  # type: ignore[attr-defined]

    @property
    def penalties(self) -> list[Penalty]:
        """The penalties that the model was compiled with."""
        return list(self._compile_penalties.penalties)

    @property
    def penalty_metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that track the unweighted values of the penalties.

        A class that overrides `metrics` must return them too. `penalized_loss` updates them; they
        ignore updates by a custom train step.
        """
        return list(self._compile_penalties.metrics)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of the model, those of the penalties last."""
        return super().metrics + self._compile_penalties.metrics

    def forward_pass(
        self, x: Any, y: Any = None, sample_weight: Any = None, training: bool = False
    ) -> ForwardPass:
        """Runs the model once and records it, as a train step does for the penalties.

        Args:
            x: Inputs, a tensor or structure of tensors `(batch_size, ...)`.
            y: Labels.
            sample_weight: Weights of the samples.
            training: Whether the model runs in training mode.

        Returns:
            A `ForwardPass`, with the gradients that the compiled penalties need.
        """
        due = [penalty for penalty, _ in self._compile_penalties.due()]
        parameters = any(penalty.needs_parameters for penalty in due)
        at = [penalty.at for penalty in due if penalty.at is not None]
        return ForwardPass(self, x, y, sample_weight, training, parameters, at)

    def penalized_loss(self, loss: Any, forward: ForwardPass) -> Any:
        """Adds the weighted penalties to a loss and updates their metrics.

        Args:
            loss: Scalar tensor, or a number.
            forward: The forward pass that `loss` comes from.

        Returns:
            Scalar tensor.
        """
        return self._compile_penalties(loss, forward)[0]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The loss of a batch, see `keras.Model.compute_loss`.

        Raises:
            ValueError: There are several replicas, and the loss is one number for the whole
                batch. Keras divides a mean over samples by the number of replicas, but not a
                scalar loss.
        """
        if backend.num_replicas() > 1 and compiled_loss(self) is not None:
            per_sample_losses(compiled_loss(self), y, y_pred)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if keras.Model in order and order.index(keras.Model) < order.index(GBRMixin):
            raise check.error(
                f"GBRMixin goes before keras.Model, or it has no effect. Write "
                f"`class {cls.__name__}(keras_gbr.GBRMixin, keras.Model)`.",
                "bases",
                [base.__name__ for base in cls.__bases__],
            )
        if keras.Model in order:
            show_signature(cls, GBRMixin)

    def make_train_function(self, force: bool = False) -> Any:
        """Compiles the step of `fit`; called by Keras before the first one."""
        before = self.train_function  # type: ignore[has-type]
        super().make_train_function(force)
        function: Any = self.train_function  # type: ignore[has-type]
        if self.penalties and function is not before:
            function = self.train_function = warns_without_penalties(
                function, type(self).__name__, self._compile_penalties
            )
        return function

    def without_penalties(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Logs without the metrics of the penalties.

        Args:
            logs: Values by the names of metrics.
        """
        names = {penalty.name for penalty in self._compile_penalties.penalties}
        return {name: value for name, value in logs.items() if name not in names}

    def get_compile_config(self) -> dict[str, Any] | None:
        """The configuration for `compile_from_config`, with the penalties."""
        config = super().get_compile_config()
        if config:  # it is empty if the model is not compiled
            config["penalties"] = [
                keras.saving.serialize_keras_object(penalty) for penalty in self.penalties
            ]
            config["check_numerics"] = self._check_numerics
            if "jit_compile" in config or self._asked_jit_compile != "auto":
                config["jit_compile"] = self._asked_jit_compile
        return portable(config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as `get_compile_config` describes and builds the optimizer.

        If the backend in use cannot compile steps as the backend that saved the model did, a
        warning says so, and `jit_compile` is "auto".
        """
        self.compile(**loadable(keras.saving.deserialize_keras_object(config)))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)


@keras.saving.register_keras_serializable("keras_gbr")
class GBRModel(GBRMixin, keras.Model):
    """A `keras.Model` that trains with penalties: `GBRModel(inputs, outputs)`.

    `GBRModel(model.inputs, model.outputs)` makes one from an existing model and shares its layers.
    A list of one input or output counts as that tensor. See `GBRMixin` for `compile`. A subclassed
    model takes the mixin instead.

    Args:
        *args: `inputs` and `outputs`, as `keras.Model`.
        **kwargs: As `keras.Model`, such as `name`.

    Raises:
        ValueError: There are no outputs, or the first argument is a model.

    Example:

    ```python
    inputs = keras.Input((784,))
    outputs = keras.layers.Dense(10)(inputs)
    model = keras_gbr.GBRModel(inputs, outputs)
    model.compile("sgd", "mse", penalties=[keras_gbr.Jacobian(0.01)])
    ```
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = args[0] if args else kwargs.get("inputs")
        has_outputs = len(args) > 1 or "outputs" in kwargs
        if not has_outputs or isinstance(given, keras.Model):
            # Keras would make `GBRModel` itself a functional class from its first use on.
            raise check.error(
                "GBRModel is functional: GBRModel(inputs, outputs). " + _way_out(given),
                "inputs",
                given,
            )
        for name in ("inputs", "outputs"):
            if name in kwargs:
                kwargs[name] = _single(kwargs[name])
        super().__init__(*map(_single, args), **kwargs)


def _single(structure: Any) -> Any:
    """The only element of a list of one, such as `model.inputs`; other structures as they are."""
    is_list_of_one = isinstance(structure, (list, tuple)) and len(structure) == 1
    return structure[0] if is_list_of_one else structure


def _way_out(given: Any) -> str:
    """What to write in place of `GBRModel(given)`."""
    if isinstance(given, keras.Model):
        return "For an existing model write `GBRModel(model.inputs, model.outputs)`."
    if isinstance(given, (list, tuple)) and any(isinstance(each, keras.Layer) for each in given):
        return (
            "For a list of layers write `model = keras.Sequential(layers)`, then "
            "`GBRModel(model.inputs, model.outputs)`; the list begins with a `keras.Input`."
        )
    return "Write a model with a `call` of its own as `class Net(keras_gbr.GBRMixin, keras.Model)`."
