"""The arguments of `compile`: Keras' own, those of this package, and what is refused."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr.penalties import Penalty
from keras_gbr.training.trainer import jit_compile

_OWN = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    for name, default in (("penalties", None), ("check_numerics", False))
]


def signature_over(behind: Callable[..., Any]) -> inspect.Signature:
    """The signature of a `compile` that passes all but its own arguments on to another one.

    Args:
        behind: The other `compile`, a function with `self`.
    """
    parameters = list(inspect.signature(behind).parameters.values())
    has_kwargs = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    end = len(parameters) - has_kwargs
    return inspect.Signature([*parameters[:end], *_OWN, *parameters[end:]], return_annotation=None)


def show_signature(cls: type, mixin: type) -> None:
    """Shows the signature of a class that has another `compile` than Keras' behind the mixin.

    Args:
        cls: A subclass of the mixin.
        mixin: The class whose `compile` passes arguments on to the one behind it.
    """
    shared = vars(mixin)["compile"]
    compile_of_class: Any = cls.compile  # type: ignore[attr-defined]
    if getattr(compile_of_class, "__wrapped__", compile_of_class) is not shared:
        return
    behind = next(
        vars(base)["compile"]
        for base in cls.__mro__[cls.__mro__.index(mixin) + 1 :]
        if "compile" in vars(base)
    )
    signature = signature_over(behind)
    if signature != inspect.signature(compile_of_class):

        @functools.wraps(shared)
        def compile(self: Any, *args: Any, **kwargs: Any) -> None:
            shared(self, *args, **kwargs)

        compile.__signature__ = signature  # type: ignore[attr-defined]
        cls.compile = compile  # type: ignore[attr-defined]


class CompileArguments:
    """The arguments of a call of `compile`, by name.

    Args:
        function: The bound method that they are for.
        *args: Positional arguments.
        **kwargs: Keyword arguments.

    Raises:
        TypeError: The method does not take them.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._function = function
        self._bound = inspect.signature(function).bind_partial(*args, **kwargs)

    def takes(self, name: str) -> bool:
        """Whether the method has a parameter of this name."""
        return name in self._bound.signature.parameters

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, even one that goes into `**kwargs`."""
        return {**self._bound.kwargs, **self._bound.arguments}.get(name, default)

    def set_jit_compile(self, value: bool | str) -> None:
        """Sets `jit_compile`.

        Raises:
            ValueError: The method does not take it.
        """
        parameters = self._bound.signature.parameters.values()
        catch_all = [each.name for each in parameters if each.kind is each.VAR_KEYWORD]
        arguments = self._bound.arguments
        if self.takes("jit_compile"):
            arguments["jit_compile"] = value
        elif catch_all:
            others = arguments.get(catch_all[0], {})
            arguments[catch_all[0]] = {**others, "jit_compile": value}
        else:
            raise check.error(
                "`check_numerics` needs a `compile` that takes `jit_compile`, to leave out XLA. "
                "Give the `compile` of the class `**kwargs` and pass them on to that of "
                "keras.Model.",
                "compile",
                self._bound.signature,
            )

    def call(self) -> None:
        """Calls the method."""
        self._function(*self._bound.args, **self._bound.kwargs)


def checked_penalties(penalties: Any) -> list[Penalty]:
    """The penalties of `compile` as a list.

    Raises:
        ValueError: They are not penalties, or two have the same name.
    """
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
            "Each penalty needs a name of its own: give `name=` to penalties of the same class.",
            "penalties",
            names,
        )
    return list(penalties)


def require_loss(penalties: list[Penalty], loss: Any) -> None:
    """Refuses a penalty on the loss for a model without one.

    Raises:
        ValueError: `loss` is `None`, and a penalty needs it.
    """
    for penalty in penalties:
        if penalty.needs_loss and loss is None:
            raise check.error(
                f"{type(penalty).__name__} penalises a gradient of the loss: `compile` "
                "needs a `loss`. Terms of `add_loss` do not count.",
                "loss",
                loss,
            )


def require_metrics(model: keras.Model, metrics: list[keras.metrics.Metric]) -> None:
    """Refuses a model whose `metrics` leave out those of the penalties.

    Raises:
        ValueError: A metric is missing.
    """
    found = {id(metric) for metric in model.metrics}
    if any(id(metric) not in found for metric in metrics):
        raise check.error(
            f"`{type(model).__name__}.metrics` must return the metrics of the penalties too, or "
            "they are not reset after an epoch. Write `return [..., *self.penalty_metrics]`.",
            "metrics",
            [metric.name for metric in model.metrics],
        )


def loadable(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `compile` of a saved model, with a `jit_compile` that the backend takes."""
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
