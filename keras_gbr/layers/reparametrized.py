"""The base of the wrapper layers that compute with a function of the kernels."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar

import keras
from keras import ops

from keras_gbr import _checks as check
from keras_gbr import backend
from keras_gbr._keras.layer_tree import all_layers, children, walk
from keras_gbr._keras.patching import replaced
from keras_gbr._keras.transparent import Transparent
from keras_gbr.kernels import KINDS, Kernel, check_kernels, check_layer, kernels_of
from keras_gbr.maths.filters import Axes


class Reparametrized(Transparent):
    """Base of the wrappers: the layer computes with `reparametrize(kernel, ...)`.

    The variables of the wrapped layer hold the raw kernels, which the optimizer updates and
    their own regularizers and constraints see. Every call, in training and in inference,
    computes the function anew and the gradient flows through it. Nothing is assigned. Masks,
    activity regularizers, biases, activations and everything else of the layer stay as they are.

    A layer with several kernels (`LSTM`, `SeparableConv2D`), or one that holds other layers
    (`MultiHeadAttention`, `Bidirectional`, a layer of your own), has each of its kernels
    replaced, see `keras_gbr.kernels` for what they and their filters are. A layer of your own
    names those that it makes with `add_weight` in `gbr_kernels`, `{"weight": -1}`.

    A subclass implements `reparametrize` and may give each kernel a parameter of its own in
    `build_parameter`.

    Args:
        layer: The layer to wrap, of one of the classes in `kinds`, or a layer of your own that
            holds such layers; built or not.
        **kwargs: Those of `keras.layers.Layer`. Outputs have the dtype of those of `layer`;
            a `dtype` given here has no effect.

    Call arguments:
        As the wrapped layer.

    Input shape:
        As the wrapped layer.

    Output shape:
        As the wrapped layer.

    Raises:
        ValueError: `layer` has no kernel, is wrapped already, quantized, or has LoRA enabled.
    """

    kinds: ClassVar[tuple[type, ...]] = KINDS

    def __init__(self, layer: keras.Layer, **kwargs: Any) -> None:
        _check_unwrapped(layer)
        check_layer(layer, self.kinds)
        super().__init__(layer, **kwargs)
        self.kernel_parameters: list[Any] = []

    def build(self, *args: Any, **kwargs: Any) -> None:
        super().build(*args, **kwargs)
        _check_unwrapped(self.layer)
        kernels = check_kernels(self.layer)
        for kernel in kernels:
            self.check_kernel(kernel)
        names = [kernel.name.replace("/", "_") for kernel in kernels]
        self.kernel_parameters = [
            self.build_parameter(kernel, f"{name}_" if len(kernels) > 1 else "")
            for kernel, name in zip(kernels, names, strict=True)
        ]

    def check_kernel(self, kernel: Kernel) -> None:
        """Refuses a kernel that `reparametrize` would make useless; none by default.

        Args:
            kernel: The kernel.

        Raises:
            ValueError: It is one.
        """

    def build_parameter(self, kernel: Kernel, prefix: str) -> Any:
        """Creates the variable that `reparametrize` needs besides a kernel; none by default.

        Args:
            kernel: The kernel.
            prefix: For the name of the variable: empty in a layer with one kernel.

        Returns:
            A variable or `None`. They are kept in `kernel_parameters`, in the order of `kernels`.
        """
        return None

    def reparametrize(self, kernel: Any, filter_axis: Axes, parameter: Any) -> Any:
        """The kernel to compute with.

        Args:
            kernel: Variable, the raw kernel.
            filter_axis: The axis, or tuple of axes, that number its filters.
            parameter: What `build_parameter` returned for it.

        Returns:
            Tensor of the same shape and dtype.
        """
        raise TypeError(f"{type(self).__name__} must implement `reparametrize(kernel, ...)`.")

    @property
    def kernels(self) -> dict[str, Any]:
        """The kernels that the layer computes with, tensors in the precision of the variables.

        By their names, which are those of the attributes, with the path to a layer inside:
        "kernel", "depthwise_kernel", "lstm_cell/recurrent_kernel", "query/kernel".
        """
        return {
            raw.name: self.reparametrize(raw.variable, raw.filter_axis, parameter)
            for raw, parameter in zip(kernels_of(self.layer), self.kernel_parameters, strict=True)
        }

    @property
    def kernel(self) -> Any:
        """The kernel that the layer computes with, if it has one alone."""
        kernel, *others = self.kernels.values()
        if others:
            raise AttributeError(f"{self.name} has several kernels: see `kernels`, not `kernel`.")
        return kernel

    def call(self, *args: Any, **kwargs: Any) -> Any:
        with _computing_with(zip(kernels_of(self.layer), self.kernels.values(), strict=True)):
            return super().call(*args, **kwargs)


def _check_unwrapped(layer: Any) -> None:
    """Refuses a layer whose kernels, or those of a layer inside, are replaced already."""
    for part in all_layers(layer) if isinstance(layer, keras.Layer) else ():
        if isinstance(part, Reparametrized):
            raise check.error(
                "`layer` must not be wrapped already: one function of the kernel at a time.",
                "layer",
                part,
            )


@contextmanager
def _computing_with(pairs: Iterable[tuple[Kernel, Any]]) -> Iterator[None]:
    """Lets built layers, in this thread, read other kernels in place of their variables.

    Calling the layer itself, rather than `stateless_call`, keeps its losses.
    """
    values: dict[int, tuple[keras.Layer, dict[str, Any]]] = {}
    for kernel, value in pairs:
        owner = kernel.layer
        cast = ops.cast(value, owner.compute_dtype)
        values.setdefault(id(owner), (owner, {}))[1][kernel.attribute] = cast
    trace = backend.current_trace()
    with ExitStack() as stack:
        for owner, kernels in values.values():
            stack.enter_context(replaced(owner, kernels, partial(_check_trace, trace, owner)))
        yield


def _check_trace(trace: Any, layer: keras.Layer) -> None:
    """Refuses to read a kernel in a function that would keep it for later calls."""
    if backend.current_trace() is not trace:
        raise check.error(
            f"Layer {layer.name!r} must not read its kernel in a `tf.function` of its own inside "
            "of a wrapper: the function would compute with the kernel of its first call for good. "
            "Leave out the decorator, Keras compiles the step as a whole; or give the function "
            "the kernel as an argument.",
            "layer",
            layer,
        )


def kernels_in_use(layer: keras.Layer) -> Iterator[tuple[str, Any]]:
    """The kernels that a layer or model computes with, each once.

    Args:
        layer: A built layer or model.

    Yields:
        Name and tensor. The name is that of the layer of a model, wrapped or not, followed by
        `/<kernel>` if it has several kernels.
    """
    seen: set[int] = set()
    for _, part in walk(layer, _inside):
        if id(part) in seen or isinstance(part, keras.Model) or _is_passing(part):
            continue
        seen.add(id(part))
        if isinstance(part, Reparametrized):
            kernels = part.kernels
        else:
            kernels = {kernel.name: kernel.variable for kernel in kernels_of(part)}
        for name, kernel in kernels.items():
            yield part.name if len(kernels) == 1 else f"{part.name}/{name}", kernel


def _inside(layer: keras.Layer) -> list[keras.Layer]:
    """The layers of a model, and the one in a wrapper that leaves the kernels as they are."""
    if _is_passing(layer):
        return [layer.layer]
    return children(layer) if isinstance(layer, keras.Model) else []


def _is_passing(layer: keras.Layer) -> bool:
    return isinstance(layer, Transparent) and not isinstance(layer, Reparametrized)
