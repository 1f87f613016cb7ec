"""Recorded functions by `jax.vjp`, which needs functions without side effects."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from keras_gbr._keras.masks import mask_of, with_mask
from keras_gbr._keras.noted_losses import losses_of, note_again
from keras_gbr._keras.stateless import NestedStatelessScope
from keras_gbr.backend.contract import Recording, Watch


def record(
    function: Callable[[list[Any], Watch], Any],
    inputs: list[Any],
    watches: bool = False,
    parameters: Sequence[keras.Variable] | None = None,
    layers: Sequence[keras.Layer] = (),
) -> Recording:
    """See `keras_gbr.backend.contract`."""
    parameters = parameters or ()
    pure = _Pure(function, inputs, parameters, layers)
    primals: tuple[Any, ...] = (inputs, [], [variable.value for variable in parameters])
    if watches:
        # Zeros are added to the watched tensors. Gradients at them are those at the zeros.
        shapes = jax.eval_shape(lambda *arguments: pure(*arguments)[1]["watched"], *primals)
        primals = (inputs, [jnp.zeros(s.shape, s.dtype) for s in shapes], primals[2])
    output, pull, effects = jax.vjp(pure, *primals, has_aux=True)
    pure.replay(effects)
    output = _with_masks(output, effects["masks"])
    sources = [*inputs, *effects["watched"], *parameters]

    def gradients(function: Callable[[Any], Any], wrt: list[Any], strict: bool = True) -> list[Any]:
        def total(output: Any) -> Any:
            return jnp.sum(function(_with_masks(output, effects["masks"])))

        value, pull_total = jax.vjp(total, output)
        (cotangent,) = pull_total(jnp.ones_like(value))
        found = _reached(lambda c: keras.tree.flatten(pull(c)), cotangent)
        by_source = {id(source): g for source, g in zip(sources, found, strict=True)}
        return [by_source.get(id(each)) for each in wrt]

    watched: dict[Hashable, list[Any]] = {}
    for key, tensor in zip(pure.keys, effects["watched"], strict=True):
        watched.setdefault(key, []).append(tensor)
    return Recording(output, watched, gradients)


@contextmanager
def repeatable(
    variables: Iterable[keras.Variable],
) -> Iterator[Callable[[Any], NestedStatelessScope]]:
    """See `keras_gbr.backend.contract`. Arrays never change, so none is copied."""
    before = [(variable, variable.value) for variable in variables]
    yield lambda values: NestedStatelessScope([*values, *before])


class _Pure:
    """A function without side effects: it returns its effects beside its output.

    Attributes:
        keys: The keys of the watched tensors of the last call.
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
        self.keys: list[Hashable] = []
        self._updated: list[keras.Variable] = []

    def __call__(
        self, inputs: list[Any], shifts: list[Any], values: list[Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Runs the function and returns its output and its effects.

        Args:
            inputs: Its inputs.
            shifts: Tensors that are added to the watched tensors, or an empty list.
            values: The values of the parameters.
        """
        watched: list[Any] = []
        self.keys = []

        def watch(key: Hashable, tensor: Any) -> Any:
            moved = tensor + shifts[len(watched)] if shifts else tensor
            watched.append(with_mask(moved, mask_of(tensor)))
            self.keys.append(key)
            return watched[-1]

        inputs = [with_mask(jnp.asarray(x), m) for x, m in zip(inputs, self.masks, strict=True)]
        pairs = zip(self.parameters, values, strict=True)
        with NestedStatelessScope(pairs, collect_losses=True) as scope:
            output = self.function(inputs, watch)
        self._updated = [variable for variable, _ in scope.updates]
        effects = {
            "watched": watched,
            "updates": [value for _, value in scope.updates],
            "losses": [losses_of(layer, scope.losses) for layer in self.layers],
            "masks": [mask_of(leaf) for leaf in keras.tree.flatten(output)],
        }
        return output, effects

    def replay(self, effects: dict[str, Any]) -> None:
        """Updates the variables and adds the losses, as the function itself would have done."""
        for variable, value in zip(self._updated, effects["updates"], strict=True):
            variable.assign(value)
        for layer, losses in zip(self.layers, effects["losses"], strict=True):
            note_again(layer, losses)


def _with_masks(output: Any, masks: list[Any]) -> Any:
    leaves = [with_mask(x, m) for x, m in zip(keras.tree.flatten(output), masks, strict=True)]
    return keras.tree.pack_sequence_as(output, leaves)


def _reached(function: Callable[[Any], list[Any]], argument: Any) -> list[Any]:
    """The results of a function, `None` for those that do not depend on its argument.

    JAX returns zeros where there is no path. They look like a gradient that happens to be zero.
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
    """Compiles once for each shape. What the function assigns is dropped."""
    variables = model.variables

    @jax.jit
    def run(values: list[Any], *args: Any) -> Any:
        with NestedStatelessScope(zip(variables, values, strict=True)):
            return function(*args)

    return lambda *args: run([variable.value for variable in variables], *args)


def require_second_derivatives(loss: Any, model: keras.Model) -> None:
    """Does nothing: JAX supports higher derivatives or raises its own error."""
