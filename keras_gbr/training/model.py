"""The model mixin that trains with penalties."""

import functools
import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr import backend
from keras_gbr._keras.evaluation import EvaluatesLess
from keras_gbr._keras.per_sample_losses import compiled_loss, per_sample_losses
from keras_gbr._keras.saved_config import portable
from keras_gbr.penalties import Penalty
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.training.compile_penalties import Terms
from keras_gbr.training.trainer import Trainer, jit_compile


class GBRMixin(EvaluatesLess, Trainer):
    """Adds `compile(penalties=[...])` to a `keras.Model`; goes before it in a subclass.

    `fit` then minimises the compiled loss plus the weighted penalties. Each step runs the model
    once and takes the loss and every penalty from that one pass. Each penalty's unweighted
    value is a metric under the penalty's name. `evaluate` and `predict` are those of Keras;
    the loss of `evaluate` has no penalties in it. A penalty on an operation that has no second
    derivative, such as bilinear resizing, is refused before the first step.

    Under `tf.distribute.MirroredStrategy` and `MultiWorkerMirroredStrategy` a step is that of one
    replica on the whole batch, if that divides evenly. An incomplete last batch counts by
    replica, not by sample: drop it (`drop_remainder=True`). What Keras gets wrong on several
    replicas is refused.

    Without penalties and `check_numerics` a step is Keras' own. A subclass that overrides
    `train_step` replaces the penalties; one that overrides `compute_loss` keeps them, on top of
    what it returns.

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

    _terms = Terms([])

    def compile(
        self,
        *args: Any,
        penalties: Sequence[Penalty] | None = None,
        check_numerics: bool = False,
        **kwargs: Any,
    ) -> None:
        """Configures the model for training.

        Args:
            *args: As `keras.Model.compile`.
            penalties: A list of penalties: `Jacobian`, `InputGradient`, `ParameterGradient`,
                `Adversarial`.
                Two with the same name need a `name=` of their own.
            check_numerics: Whether a step whose loss, penalty or gradient is not finite stops
                `fit` with an error that names it, before any weight changes; with or without
                penalties. Under loss scaling (float16) gradients may overflow: the optimizer
                skips such a step. TensorFlow's XLA drops the check: `jit_compile="auto"` then
                means without XLA. `keras.callbacks.TerminateOnNaN` ends training after such a
                step.
            **kwargs: As `keras.Model.compile`.

        Raises:
            ValueError: `penalties` is not a list of penalties, two have the same name, or one
                needs a loss and none is given; or `jit_compile=True` asks for what the backend
                cannot compile: `check_numerics` under TensorFlow, that and penalties under
                PyTorch. The model is then left as it was.
        """
        checked = _checked(penalties)
        check.boolean("check_numerics", check_numerics)
        compile_model = super().compile
        given = _given(compile_model, args, kwargs)
        asked = given.get("jit_compile", "auto")
        resolved = jit_compile(asked, bool(checked), check_numerics)
        if resolved != asked:
            args, kwargs = _with_jit_compile(compile_model, args, kwargs, resolved)
        if "loss" in inspect.signature(compile_model).parameters:
            _check_loss(checked, given.get("loss"))
        compile_model(*args, **kwargs)
        _check_loss(checked, compiled_loss(self))
        self._terms = Terms(checked, check_numerics)
        self._terms.jit_compile = asked
        _check_metrics(self, self._terms.metrics)

    @property
    def penalties(self) -> list[Penalty]:
        """The penalties that the model was compiled with."""
        return list(self._terms.penalties)

    @property
    def penalty_metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that track the unweighted values of the penalties.

        A class that overrides `metrics` must return them too. Metrics of a step of one's own
        are updated as usual; these take what `penalized_loss` finds, and ignore other updates.
        """
        return list(self._terms.metrics)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of the model, those of the penalties last."""
        return super().metrics + self._terms.metrics

    def forward_pass(
        self, x: Any, y: Any = None, sample_weight: Any = None, training: bool = False
    ) -> ForwardPass:
        """One recorded forward pass, as the penalties get it.

        Args:
            x: Inputs, a tensor or structure of tensors `(batch_size, ...)`.
            y: Labels.
            sample_weight: Weights of the samples.
            training: Whether the model runs in training mode.

        Returns:
            A `ForwardPass`.
        """
        return self._terms.forward_pass(self, x, y, sample_weight, training)

    def penalized_loss(
        self, loss: Any, forward: ForwardPass, values: dict[str, Any] | None = None
    ) -> Any:
        """Adds the weighted penalties to a loss and updates their metrics.

        Args:
            loss: Scalar tensor, or a number.
            forward: The forward pass that `loss` comes from.
            values: Takes the unweighted value of each penalty, under words that name it.

        Returns:
            Scalar tensor.
        """
        return self._terms.add_to(loss, forward, {} if values is None else values)

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
                batch. Keras divides a mean over samples by the number of replicas, and such a
                number not.
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

    def make_train_function(self, force: bool = False) -> Any:
        """Compiles the step of `fit`; called by Keras before the first one."""
        had = self.train_function  # type: ignore[has-type]
        super().make_train_function(force)
        function: Any = self.train_function  # type: ignore[has-type]
        if self.penalties and function is not had:
            function = self.train_function = _reminding(function, self)
        return function

    def without_penalties(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Logs without the metrics of the penalties."""
        names = {penalty.name for penalty in self._terms.penalties}
        return {name: value for name, value in logs.items() if name not in names}

    def get_compile_config(self) -> dict[str, Any] | None:
        """The configuration that `compile_from_config` takes, penalties included."""
        config = super().get_compile_config()
        if config:  # empty where the model is not compiled
            config["penalties"] = [
                keras.saving.serialize_keras_object(penalty) for penalty in self._terms.penalties
            ]
            config["check_numerics"] = self._terms.check_numerics
            if "jit_compile" in config or self._terms.jit_compile != "auto":
                config["jit_compile"] = self._terms.jit_compile
        return portable(config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as `get_compile_config` describes and builds the optimizer.

        Where the backend in use cannot compile the steps as those of the backend were that has
        saved the model, a warning says so, and they run as by `jit_compile="auto"`.
        """
        self.compile(**_possible(keras.saving.deserialize_keras_object(config)))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)


@keras.saving.register_keras_serializable("keras_gbr")
class GBRModel(GBRMixin, keras.Model):
    """A `keras.Model` that trains with penalties: `GBRModel(inputs, outputs)`.

    A model that exists becomes one by `GBRModel(model.inputs, model.outputs)`, sharing its
    layers; a list of one input or output counts as that tensor. See `GBRMixin` for `compile`; a
    subclassed model takes the mixin.

    Args:
        *args: `inputs` and `outputs`, as `keras.Model`.
        **kwargs: As `keras.Model`, such as `name`.

    Raises:
        ValueError: There are no inputs.

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
            # Keras turns this class into a functional one for good at its first use.
            raise check.error(
                "GBRModel is functional: GBRModel(inputs, outputs). " + _way(given),
                "inputs",
                given,
            )
        for name in ("inputs", "outputs"):
            if name in kwargs:
                kwargs[name] = _single(kwargs[name])
        super().__init__(*map(_single, args), **kwargs)


def _single(structure: Any) -> Any:
    """The only element of a list of one: `model.inputs` is one where the model takes a tensor."""
    is_list_of_one = isinstance(structure, (list, tuple)) and len(structure) == 1
    return structure[0] if is_list_of_one else structure


def _way(given: Any) -> str:
    """What to write in place of `GBRModel(given)`."""
    if isinstance(given, keras.Model):
        return "Of a model that exists write `GBRModel(model.inputs, model.outputs)`."
    if isinstance(given, (list, tuple)) and any(isinstance(each, keras.Layer) for each in given):
        return (
            "Of a list of layers write `model = keras.Sequential(layers)`, then "
            "`GBRModel(model.inputs, model.outputs)`; the list begins with a `keras.Input`."
        )
    return "Write a model with a `call` of its own as `class Net(keras_gbr.GBRMixin, keras.Model)`."


def _given(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names, also those that go into `**kwargs`."""
    bound = inspect.signature(function).bind_partial(*args, **kwargs)
    return {**bound.kwargs, **bound.arguments}


def _with_jit_compile(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: bool | str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `compile` with the `jit_compile` that the backend makes of it."""
    try:
        bound = inspect.signature(function).bind_partial(*args, **kwargs)
        names = [name for name, _ in zip(bound.signature.parameters, args, strict=False)]
        if "jit_compile" in names:
            position = names.index("jit_compile")
            return (*args[:position], value, *args[position + 1 :]), kwargs
        inspect.signature(function).bind_partial(*args, **{**kwargs, "jit_compile": value})
    except TypeError as error:
        raise check.error(
            "`check_numerics` needs a `compile` that takes `jit_compile`, to leave out XLA. Give "
            "the `compile` of the class `**kwargs` and pass them on to that of keras.Model.",
            "compile",
            inspect.signature(function),
        ) from error
    return args, {**kwargs, "jit_compile": value}


def _check_loss(penalties: list[Penalty], loss: Any) -> None:
    for penalty in penalties:
        if penalty.needs_loss and loss is None:
            raise check.error(
                f"{type(penalty).__name__} penalises a gradient of the loss: `compile` "
                "needs a `loss`. Terms of `add_loss` do not count.",
                "loss",
                loss,
            )


def _check_metrics(model: keras.Model, metrics: list[keras.metrics.Metric]) -> None:
    """Refuses a class that leaves out the metrics of the penalties."""
    found = {id(metric) for metric in model.metrics}
    if any(id(metric) not in found for metric in metrics):
        raise check.error(
            f"`{type(model).__name__}.metrics` must return the metrics of the penalties too, or "
            "they are not reset after an epoch. Write `return [..., *self.penalty_metrics]`.",
            "metrics",
            [metric.name for metric in model.metrics],
        )


def _reminding(function: Any, model: Any) -> Any:
    """A step of `fit` that says after the first one if it has computed no penalty."""
    terms = model._terms

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        result = function(*args)
        if not terms.computed:
            terms.computed = True
            warnings.warn(
                f"`{type(model).__name__}.train_step` computes no penalty, so the model trains "
                "without those that it was compiled with. Take the outputs from "
                "`forward = self.forward_pass(x, y, training=True)` as `forward.y_pred`, and "
                "minimise `self.penalized_loss(loss, forward)`.",
                stacklevel=2,
            )
        return result

    return run


def _possible(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `compile` of a saved model, with a `jit_compile` that the backend has."""
    asked = settings.get("jit_compile", "auto")
    try:
        penalties, check_numerics = settings.get("penalties"), settings.get("check_numerics")
        jit_compile(asked, bool(penalties), bool(check_numerics))
    except ValueError as error:
        warnings.warn(
            f"The saved model was compiled with jit_compile={asked!r} and goes on with "
            f'jit_compile="auto". {error}',
            stacklevel=2,
        )
        return settings | {"jit_compile": "auto"}
    return settings


def _checked(penalties: Any) -> list[Penalty]:
    if penalties is None:
        return []
    if not isinstance(penalties, (list, tuple)) or not all(
        isinstance(penalty, Penalty) for penalty in penalties
    ):
        raise check.error(
            "`penalties` must be a list of penalties, such as [keras_gbr.Jacobian(0.01)].",
            "penalties",
            penalties,
        )
    names = [penalty.name for penalty in penalties]
    if len(set(names)) < len(names):
        raise check.error(
            "Each penalty needs a name of its own: give `name=` to those of the same kind.",
            "penalties",
            names,
        )
    return list(penalties)
