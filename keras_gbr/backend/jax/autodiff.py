"""Recorded functions by `jax.vjp`, which wants functions that change nothing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from keras_gbr._keras.masks import mask_of, with_mask
from keras_gbr._keras.noted_losses import losses_of, note_again
from keras_gbr._keras.stateless import Sandbox


def record(
    function: Callable[[list[Any], Callable[[str, Any], Any]], Any],
    inputs: list[Any],
    watches: bool = False,
    parameters: Sequence[keras.Variable] | None = None,
    layers: Sequence[keras.Layer] = (),
) -> tuple[Any, dict[str, list[Any]], Callable[..., list[Any]]]:
    """Runs a function and records it, for gradients of functions of its output.

    See `keras_gbr.backend.tensorflow.autodiff.record` for the arguments and what is returned.
    """
    parameters = parameters or ()
    pure = _Pure(function, inputs, parameters, layers)
    primals: tuple[Any, ...] = (inputs, [], [variable.value for variable in parameters])
    if watches:
        # Gradients at what the function computes inside are those by zeros that are added.
        shapes = jax.eval_shape(lambda *arguments: pure(*arguments)[1]["watched"], *primals)
        primals = (inputs, [jnp.zeros(s.shape, s.dtype) for s in shapes], primals[2])
    output, pull, effects = jax.vjp(pure, *primals, has_aux=True)
    pure.replay(effects)
    output = _with_masks(output, effects["masks"])
    sources = [*inputs, *effects["watched"], *parameters]

    def gradients(of: Callable[[Any], Any], wrt: list[Any], strict: bool = True) -> list[Any]:
        def total(output: Any) -> Any:
            return jnp.sum(of(_with_masks(output, effects["masks"])))

        value, pull_total = jax.vjp(total, output)
        (cotangent,) = pull_total(jnp.ones_like(value))
        found = _reached(lambda c: keras.tree.flatten(pull(c)), cotangent)
        by_source = {id(source): g for source, g in zip(sources, found, strict=True)}
        return [by_source.get(id(each)) for each in wrt]

    watched: dict[str, list[Any]] = {}
    for name, tensor in zip(pure.names, effects["watched"], strict=True):
        watched.setdefault(name, []).append(tensor)
    return output, watched, gradients


@contextmanager
def repeatable(variables: Iterable[keras.Variable]) -> Iterator[Callable[[Any], Sandbox]]:
    """Notes what variables are before a pass inside assigns them, to run the same pass again.

    See `keras_gbr.backend.assigned_in_place.repeatable`. Arrays never change, so none is copied.
    """
    before = [(variable, variable.value) for variable in variables]
    yield lambda values: Sandbox([*values, *before])


class _Pure:
    """A function as JAX wants it: what it does beside its output is returned with it.

    Attributes:
        names: Those of the watched tensors of the last call.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: list[Any],
        parameters: Sequence[keras.Variable],
        layers: Sequence[keras.Layer],
    ) -> None:
        self.function, self.parameters, self.layers = function, parameters, layers
        self.masks = [mask_of(tensor) for tensor in inputs]
        self.names: list[str] = []
        self._updated: list[keras.Variable] = []

    def __call__(
        self, inputs: list[Any], shifts: list[Any], values: list[Any]
    ) -> tuple[Any, dict[str, Any]]:
        """The output of the function and its effects.

        Args:
            inputs: Its inputs.
            shifts: What is added to the watched tensors, or nothing.
            values: The values of the parameters.
        """
        watched: list[Any] = []
        self.names = []

        def watch(name: str, tensor: Any) -> Any:
            moved = tensor + shifts[len(watched)] if shifts else tensor
            watched.append(with_mask(moved, mask_of(tensor)))
            self.names.append(name)
            return watched[-1]

        inputs = [with_mask(jnp.asarray(x), m) for x, m in zip(inputs, self.masks, strict=True)]
        pairs = zip(self.parameters, values, strict=True)
        with Sandbox(pairs, collect_losses=True) as sandbox:
            output = self.function(inputs, watch)
        self._updated = [variable for variable, _ in sandbox.updates]
        effects = {
            "watched": watched,
            "updates": [value for _, value in sandbox.updates],
            "losses": [losses_of(layer, sandbox.losses) for layer in self.layers],
            "masks": [mask_of(leaf) for leaf in keras.tree.flatten(output)],
        }
        return output, effects

    def replay(self, effects: dict[str, Any]) -> None:
        """Updates the variables and adds the losses, as the function would have done itself."""
        for variable, value in zip(self._updated, effects["updates"], strict=True):
            variable.assign(value)
        for layer, losses in zip(self.layers, effects["losses"], strict=True):
            note_again(layer, losses)


def _with_masks(output: Any, masks: list[Any]) -> Any:
    leaves = [with_mask(x, m) for x, m in zip(keras.tree.flatten(output), masks, strict=True)]
    return keras.tree.pack_sequence_as(output, leaves)


def _reached(function: Callable[[Any], list[Any]], argument: Any) -> list[Any]:
    """The results of a function, `None` for those that do not depend on its argument.

    JAX gives zeros where there is no path, which tell nothing from a gradient that vanishes.
    """
    closed = jax.make_jaxpr(function)(argument)
    results = jaxpr_as_fun(closed)(*jax.tree.leaves(argument))
    return [
        result if depends else None
        for result, depends in zip(results, _dependent(closed), strict=True)
    ]


def _dependent(closed: ClosedJaxpr) -> list[bool]:
    """Which results of a traced function depend on its arguments."""
    dependent = set(closed.jaxpr.invars)

    def depends(variable: Any) -> bool:
        return not isinstance(variable, Literal) and variable in dependent

    for equation in closed.jaxpr.eqns:
        if any(depends(variable) for variable in equation.invars):
            dependent.update(equation.outvars)
    return [depends(variable) for variable in closed.jaxpr.outvars]


def compiled(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    """`function` of tensors, which reads `model`, compiled once for each shape.

    It reads the variables as they are. What it updates is dropped.
    """
    variables = model.variables

    @jax.jit
    def run(values: list[Any], *args: Any) -> Any:
        with Sandbox(zip(variables, values, strict=True)):
            return function(*args)

    return lambda *args: run([variable.value for variable in variables], *args)


def require_second_derivatives(loss: Any, model: keras.Model) -> None:
    """Nothing: what JAX can differentiate once it can differentiate again, or says so itself."""
