"""What a backend must provide.

Each backend is a package beside this file. It provides every method of `Backend` as a function of
the same name and signature; the documentation is here and not repeated there. mypy compares the
types at the end of this file, and the tests compare names and signatures.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import keras


class Watch(Protocol):
    """The second argument of a recorded function."""

    def __call__(self, key: Hashable, tensor: Any) -> Any:
        """Makes a tensor inside the function one that gradients can be taken at.

        Args:
            key: Names the tensor in `Recording.watched`. Several tensors may have the same key.
            tensor: Floating-point tensor.

        Returns:
            The tensor that the function must use from here on in place of `tensor`.
        """


class Gradients(Protocol):
    """Takes gradients from a recording."""

    def __call__(
        self, function: Callable[[Any], Any], wrt: list[Any], strict: bool = True
    ) -> list[Any]:
        """The gradients of a function of the recorded output. It may be called several times.

        Args:
            function: Takes the output of the recorded function and returns a tensor, whose sum is
                differentiated.
            wrt: Inputs, watched tensors and parameters of the recording.
            strict: Whether a gradient that the backend does not have is an error.

        Returns:
            A list of tensors like `wrt`, which are differentiable themselves. An entry is `None`
            where the value does not depend on the tensor; if not `strict`, also where the backend
            has no gradient.

        Raises:
            MissingDerivativeError: The value depends on a tensor through an operation that the
                backend cannot differentiate.
        """


class Recording(NamedTuple):
    """What `Backend.record` returns.

    Attributes:
        output: What the function returned.
        watched: The watched tensors by their keys, in the order in which they came.
        gradients: Takes gradients of functions of the output.
    """

    output: Any
    watched: dict[Hashable, list[Any]]
    gradients: Gradients


class Backend(Protocol):
    """The functions of a backend."""

    def record(
        self,
        function: Callable[[list[Any], Watch], Any],
        inputs: list[Any],
        watches: bool = False,
        parameters: Sequence[keras.Variable] | None = None,
        layers: Sequence[keras.Layer] = (),
    ) -> Recording:
        """Runs a function and records it, for gradients of functions of its output.

        Args:
            function: `function(inputs, watch)` returns a tensor or a structure of tensors. It must
                compute with the `inputs` that it is given.
            inputs: Floating-point tensors.
            watches: Whether the function calls `watch`.
            parameters: The variables whose gradients may be asked for too, including variables
                that the function creates; `None` if there will be no such gradients.
            layers: The layers that the function calls. Their updates and losses are kept as if
                they had been called directly.
        """

    def repeatable(
        self, variables: Iterable[keras.Variable]
    ) -> AbstractContextManager[Callable[[Any], AbstractContextManager[Any]]]:
        """Notes which variables a pass assigns, so that the same pass can run again.

        A layer such as `keras.layers.SpectralNormalization` assigns its kernel when it is called.

        Args:
            variables: The trainable variables of a model.

        Returns:
            A context manager for the first pass. It yields a function that takes pairs of other
            variables and values, and returns the context manager for a repetition. Inside the
            repetition the other variables have these values, and `variables` have the values that
            they had before the first pass. Gradients with respect to `variables` are those with
            respect to the assigned values, as in the first pass.
        """

    def compiled(self, function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
        """Compiles a function that reads a model, if the backend compiles at all.

        Args:
            function: Takes and returns tensors. It reads the variables of `model` as they are at
                each call. What it assigns may be dropped, and its results may have no gradient.
            model: A built model.

        Returns:
            A function like `function`, which is traced again only for other shapes.
        """

    def require_second_derivatives(self, loss: Any, model: keras.Model) -> None:
        """Refuses a loss with penalties whose gradient the backend would get wrong.

        Args:
            loss: Scalar tensor, recorded or part of the graph that is being traced.
            model: The model that the loss belongs to.

        Raises:
            MissingSecondDerivativeError: The loss depends on trainable weights through the
                gradient of an operation that has no second derivative.
        """

    def held_numbers(self, values: list[float]) -> list[keras.Variable]:
        """Creates variables for numbers that change between steps.

        Args:
            values: The numbers now.

        Returns:
            One variable for each, if a compiled step would always use the number that it was
            traced with. An empty list if steps read Python numbers anew, or get them as arguments.
        """

    def current_trace(self) -> Any:
        """The graph that is being traced, if a tensor that is computed now belongs to it alone.

        Returns:
            An object that is the same as long as tensors may be shared, or `None`.
        """

    def num_replicas(self) -> int:
        """The number of replicas that take a step together."""

    def replica_id(self) -> Any:
        """The number of this replica, from 0: a whole number or a scalar tensor."""

    def replica_mean(self, tensors: list[Any]) -> list[Any]:
        """The means of tensors over the replicas, the same on each of them."""

    def on_accelerator(self, x: Any) -> bool:
        """Whether a tensor or variable is on a GPU or TPU.

        Args:
            x: Tensor, array or `keras.Variable`. If it is traced or not placed yet, it counts as
                where the backend would put it.
        """


if TYPE_CHECKING:
    from keras_gbr.backend import jax, tensorflow, torch

    _jax: Backend = jax
    _tensorflow: Backend = tensorflow
    _torch: Backend = torch
