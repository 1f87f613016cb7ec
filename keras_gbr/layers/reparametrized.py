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
from keras_gbr.kernels import LAYER_CLASSES, Kernel, check_kernels, check_layer, kernels_of
from keras_gbr.maths.filters import Axes


class Reparametrized(Transparent):
    """Base of the wrappers: the layer computes with `reparametrize(kernel, ...)`.

    The variables of the wrapped layer hold the raw kernels. The optimizer updates these, and the
    regularizers and constraints of the layer get these. Every call, in training and in inference,
    computes the function anew, and the gradient flows through it. Nothing is assigned. Masks,
    activity regularizers, biases, activations and everything else of the layer stay as they are.

    A layer may have several kernels (`LSTM`, `SeparableConv2D`) or hold other layers
    (`MultiHeadAttention`, `Bidirectional`, a layer of your own): each kernel is replaced.
    `keras_gbr.kernels` says what the kernels of a layer are, and which axes number their filters.
    A layer of your own declares the kernels that it makes with `add_weight`, with the axes of
    their filters: `gbr_kernels = {"weight": -1}`.

    A subclass implements `reparametrize`. It may create a parameter for each kernel in
    `build_parameter`, and refuse a kernel in `check_kernel`. Arguments of its constructor belong
    in `get_config`. Saving, cloning, `keras_gbr.strip` and the measures then work with it.

    Args:
        layer: The layer to wrap, built or not: of one of the classes in the class attribute
            `layer_classes`, or a layer of your own that holds such layers.
        **kwargs: Those of `keras.layers.Layer`. `dtype` has no effect: outputs have the dtype of
            the outputs of `layer`.

    Call arguments:
        As the wrapped layer.

    Input shape:
        As the wrapped layer.

    Output shape:
        As the wrapped layer.

    Raises:
        ValueError: `layer` has no kernel, is wrapped already, quantized, or has LoRA enabled.

    Example:

    ```python
    @keras.saving.register_keras_serializable("my_package")
    class NonNegative(keras_gbr.Reparametrized):
        # Kernels without negative entries: `scale * softplus(W)`, with a trained scale.

        def __init__(self, layer, scale=1.0, **kwargs):
            super().__init__(layer, **kwargs)
            self.scale = scale

        def check_kernel(self, kernel):
            if len(kernel.variable.shape) > 4:
                raise ValueError(f"{kernel.name} must not have more than two spatial axes.")

        def build_parameter(self, kernel, prefix):
            start = keras.initializers.Constant(self.scale)
            return self.add_weight(name=f"{prefix}scale", shape=(), initializer=start)

        def reparametrize(self, kernel, filter_axis, parameter):
            return parameter * keras.ops.softplus(kernel)

        def get_config(self):
            return {**super().get_config(), "scale": self.scale}

    layer = NonNegative(keras.layers.Dense(4), scale=0.5)
    inputs = keras.Input((3,))
    mine = keras_gbr.GBRModel(inputs, layer(inputs))
    mine.compile("sgd", "mse", penalties=[keras_gbr.Jacobian(0.01)])
    mine.fit(np.ones((8, 3)), np.ones((8, 4)), verbose=0)
    assert np.all(keras.ops.convert_to_numpy(layer.kernel) >= 0)
    mine.save("mine.keras")
    plain = keras_gbr.strip(keras.models.load_model("mine.keras"))
    assert isinstance(plain.layers[-1], keras.layers.Dense)
    ```
    """

    layer_classes: ClassVar[tuple[type, ...]] = LAYER_CLASSES

    def __init__(self, layer: keras.Layer, **kwargs: Any) -> None:
        _check_unwrapped(layer)
        check_layer(layer, self.layer_classes)
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
        """Refuses a kernel that `reparametrize` would make useless. By default all are accepted.

        Args:
            kernel: The kernel: `name`, `variable`, `filter_axis`, and the `layer` that holds it.

        Raises:
            ValueError: The kernel is refused.
        """

    def build_parameter(self, kernel: Kernel, prefix: str) -> Any:
        """Creates the variable that `reparametrize` needs besides a kernel, by default none.

        Args:
            kernel: The kernel; see `check_kernel`.
            prefix: The start of the name of the variable: empty in a layer with one kernel.

        Returns:
            A variable or `None`. `kernel_parameters` keeps them, in the order of `kernels`.
        """
        return None

    def reparametrize(self, kernel: Any, filter_axis: Axes, parameter: Any) -> Any:
        """The kernel to compute with.

        Args:
            kernel: Variable, the raw kernel.
            filter_axis: The axis, or tuple of axes, that numbers its filters.
            parameter: What `build_parameter` returned for it.

        Returns:
            Tensor of the same shape and dtype.
        """
        raise TypeError(f"{type(self).__name__} must implement `reparametrize(kernel, ...)`.")

    @property
    def kernels(self) -> dict[str, Any]:
        """The kernels that the layer computes with: tensors in the precision of the raw ones.

        A dict by name. The name is that of the attribute, after the path to a layer inside:
        "kernel", "depthwise_kernel", "lstm_cell/recurrent_kernel", "query/kernel".
        """
        return {
            raw.name: self.reparametrize(raw.variable, raw.filter_axis, parameter)
            for raw, parameter in zip(kernels_of(self.layer), self.kernel_parameters, strict=True)
        }

    @property
    def kernel(self) -> Any:
        """The kernel that the layer computes with, if it has only one."""
        kernel, *others = self.kernels.values()
        if others:
            raise AttributeError(f"{self.name} has several kernels: see `kernels`, not `kernel`.")
        return kernel

    def call(self, *args: Any, **kwargs: Any) -> Any:
        with _computing_with(zip(kernels_of(self.layer), self.kernels.values(), strict=True)):
            return super().call(*args, **kwargs)


def _check_unwrapped(layer: Any) -> None:
    """Refuses a layer if its kernels, or those of a layer inside, are replaced already."""
    for part in all_layers(layer) if isinstance(layer, keras.Layer) else ():
        if isinstance(part, Reparametrized):
            raise check.error(
                "`layer` must not be wrapped already: one function of the kernel at a time.",
                "layer",
                part,
            )


@contextmanager
def _computing_with(pairs: Iterable[tuple[Kernel, Any]]) -> Iterator[None]:
    """Lets built layers read other kernels in place of their variables, in this thread.

    The layer itself is then called: `stateless_call` would drop its losses.
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
    """Refuses a read of the kernel in a function that would keep it for later calls."""
    if backend.current_trace() is not trace:
        raise check.error(
            f"Layer {layer.name!r} must not read its kernel in a `tf.function` of its own inside "
            "a wrapper: the function would always compute with the kernel of its first call. "
            "Leave out the decorator, because Keras compiles the whole step; or give the function "
            "the kernel as an argument.",
            "layer",
            layer,
        )


def kernels_in_use(layer: keras.Layer) -> Iterator[tuple[str, Any]]:
    """Yields the kernels that a layer or model computes with, each once.

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
    """The layers inside a model, or the layer inside a wrapper that replaces no kernel."""
    if _is_passing(layer):
        return [layer.layer]
    return children(layer) if isinstance(layer, keras.Model) else []


def _is_passing(layer: keras.Layer) -> bool:
    return isinstance(layer, Transparent) and not isinstance(layer, Reparametrized)
