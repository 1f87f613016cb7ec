"""Copies built layers part by part, if no configuration describes them."""

import copy
import functools
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from types import CellType, FunctionType, MethodType
from typing import Any

import keras
from keras import ops

from keras_gbr._keras.layer_tree import all_layers, is_built_from_graph

# Locks and thread-local data hold no value to copy: each layer gets new ones.
FRESH = {type(make()): make for make in (threading.Lock, threading.RLock, threading.local)}
# What belongs to the calls of a layer, not to the layer.
CALLS = {
    "_inbound_nodes": list,
    "_outbound_nodes": list,
    "_losses": list,
    "_losses_override": list,
    "_loss_ids": set,
}
# `Layer.__new__` makes these for each layer; they refer to the layer.
MADE_BY_NEW = ("build", "quantize")


def structural_copy(layer: keras.Layer, replace: Callable[[Any], Any] = lambda part: part) -> Any:
    """A copy of a layer with everything that it holds, made without its constructor.

    Variables, random states and layers inside are new and have the values, names and flags of
    the old ones; what is shared inside stays shared. Functions, classes, modules and constant
    tensors are passed by reference; functions and methods that refer to the layer, or to one
    inside, refer to the copy.

    Args:
        layer: The layer, built or not.
        replace: Takes each object that the layer holds, returns the one to copy in its place.

    Returns:
        The copy, built if the layer is.

    Raises:
        TypeError: The layer holds something that cannot be copied.
    """
    copies = _Copies(replace)
    for part in all_layers(layer):
        copies.announce(part)
    for variable in layer.variables:
        copies.copy(variable)
    new = copies.copy(layer)
    copies.finish()
    return new


class _Copies:
    """The copies, by the `id` of their originals."""

    def __init__(self, replace: Callable[[Any], Any]) -> None:
        self.replace = replace
        self.memo: dict[int, Any] = {id(module): module for module in sys.modules.values()}
        self.blank: dict[int, keras.Layer] = {}
        self.trackers: list[Any] = []
        self.kept: list[Any] = []

    def announce(self, layer: keras.Layer) -> None:
        """Creates the copy of a layer empty, so that other copies can refer to it already."""
        if self.replace(layer) is layer and not is_built_from_graph(layer):
            new = keras.Layer.__new__(type(layer))
            self.memo[id(layer)] = self.blank[id(layer)] = new

    def copy(self, value: Any) -> Any:
        value = self.replace(value)
        if id(value) in self.blank:
            return self._layer(value)
        if id(value) not in self.memo:
            made = self._made(value)
            self.kept.append(value)  # an identity is unique among living objects only
            self.memo.setdefault(id(value), made)
        return self.memo[id(value)]

    def finish(self) -> None:
        # Keras notes what it tracks by identity.
        for tracker in self.trackers:
            tracker.stored_ids = {
                name: {id(part) for part in store} for name, (_, store) in tracker.config.items()
            }

    def _made(self, value: Any) -> Any:
        if isinstance(value, keras.Variable):
            return self._variable(value)
        if isinstance(value, keras.Layer):
            if is_built_from_graph(value):
                return self._graph(value)
            self.announce(value)
            return self._layer(value)
        if isinstance(value, keras.KerasTensor):
            return keras.KerasTensor(value.shape, value.dtype, name=value.name)
        if isinstance(value, (list, tuple, dict, set, frozenset)):
            return self._container(value)
        if callable(value) or isinstance(value, weakref.ref):
            made = self._callable(value)
            if made is not None:
                return made
        return self._other(value)

    def _variable(self, old: Any) -> Any:
        new = keras.Variable(
            ops.stop_gradient(ops.copy(old.value)),
            dtype=old.dtype,
            trainable=old.trainable,
            autocast=old._autocast,
            aggregation=old.aggregation,
            name=old.name,
        )
        self.memo[id(old)] = new
        self.memo[id(old.value)] = new.value  # PyTorch holds it in other places, too
        new.regularizer = self.copy(old.regularizer)
        new.constraint = self.copy(old.constraint)
        new.overwrite_with_gradient = old.overwrite_with_gradient
        vars(new)["_path"] = old.path
        return new

    def _layer(self, old: keras.Layer) -> keras.Layer:
        new = self.blank.pop(id(old))
        own = {name: vars(new)[name] for name in MADE_BY_NEW if name in vars(new)}
        self._fill(old, new)
        for name, function in own.items():
            if hasattr(vars(old).get(name), "__signature__"):
                function.__signature__ = vars(old)[name].__signature__
        vars(new).update(own)
        return new

    def _fill(self, old: Any, new: Any) -> None:
        is_operation = isinstance(old, keras.Operation)
        for name in _slots(old):
            object.__setattr__(new, name, self.copy(getattr(old, name)))
        for name, value in getattr(old, "__dict__", {}).items():
            if is_operation and name in CALLS:
                vars(new)[name] = CALLS[name]()
            elif not (is_operation and name in MADE_BY_NEW):
                try:
                    vars(new)[name] = self.copy(value)
                except (TypeError, AttributeError, RuntimeError) as error:
                    label = getattr(old, "name", type(old).__name__)
                    raise TypeError(f"{name!r} of {label!r}: {error}") from error

    def _graph(self, old: keras.Model) -> keras.Model:
        """A functional or sequential model inside a layer, with the attributes of its class."""

        def layer_for(part: keras.Operation) -> keras.Operation:
            new: keras.Operation = self.copy(part)
            return new

        if isinstance(old, keras.Sequential):
            new = keras.Sequential([self.copy(part) for part in old.layers], name=old.name)
            if old.built:
                new.build_from_config(old.get_build_config())
            return new
        twin = keras.Model(old.input, old.output, name=old.name)
        new = keras.models.clone_model(twin, clone_function=layer_for)
        if type(old) is not type(twin):
            plain, new = new, keras.Layer.__new__(type(old))
            vars(new).update(vars(plain))
            type(twin).__init__(new, plain.input, plain.output, name=old.name)
        self.memo[id(old)] = new
        for name, value in vars(old).items():
            if name not in vars(new) and not name.startswith("_"):
                setattr(new, name, self.copy(value))
        new.trainable = old.trainable
        return new

    def _container(self, old: Any) -> Any:
        if isinstance(old, tuple):
            parts = [self.copy(part) for part in old]
            return type(old)(*parts) if hasattr(old, "_fields") else type(old)(parts)
        if isinstance(old, frozenset):
            return type(old)(self.copy(part) for part in old)
        if type(old) not in (list, dict, set, OrderedDict) and not hasattr(old, "tracker"):
            return copy.deepcopy(old, self.memo)
        # Past the methods by which Keras' own lists and dicts track what is put into them.
        kind = next(base for base in (list, OrderedDict, dict, set) if isinstance(old, base))
        new = kind.__new__(type(old))
        kind.__init__(new)
        self.memo[id(old)] = new
        if isinstance(old, dict):
            for key, part in old.items():
                kind.__setitem__(new, self.copy(key), self.copy(part))  # type: ignore[index]
        else:
            add = list.append if kind is list else set.add
            for part in old:
                add(new, self.copy(part))
        if hasattr(old, "tracker"):
            new.tracker = self.copy(old.tracker)
        return new

    def _callable(self, value: Any) -> Any:
        """The copy of a function or reference; a class itself; `None` for any other object."""
        if isinstance(value, weakref.ref):
            target = value()
            return weakref.ref(self.copy(target)) if id(target) in self.memo else value
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return MethodType(value.__func__, self.copy(value.__self__))
        if isinstance(value, functools.partial):
            arguments = self.copy(value.args), self.copy(value.keywords)
            return type(value)(self.copy(value.func), *arguments[0], **arguments[1])
        if hasattr(value, "python_function") and hasattr(value, "_clone"):  # a `tf.function`
            function = self.copy(value.python_function)
            return value if function is value.python_function else value._clone(function)
        return value if isinstance(value, type) else None

    def _function(self, old: FunctionType) -> FunctionType:
        """A function whose closure holds the copies of what the layer holds."""
        if not old.__closure__:
            return old
        self.memo[id(old)] = old  # it may refer to itself
        cells = []
        for cell in old.__closure__:
            try:
                content = cell.cell_contents
            except ValueError:  # never assigned
                cells.append(cell)
                continue
            owner = getattr(content, "__self__", content)
            is_known = id(owner) in self.memo or isinstance(content, FunctionType)
            new = self.copy(content) if is_known else content
            cells.append(cell if new is content else CellType(new))
        if all(new is cell for new, cell in zip(cells, old.__closure__, strict=True)):
            return old
        made = FunctionType(
            old.__code__, old.__globals__, old.__name__, old.__defaults__, tuple(cells)
        )
        made.__kwdefaults__ = old.__kwdefaults__
        vars(made).update(vars(old))
        self.memo[id(old)] = made
        return made

    def _other(self, old: Any) -> Any:
        if type(old) in FRESH:
            return FRESH[type(old)]()
        if _is_constant(old):
            return old
        if hasattr(old, "resource_handle"):  # a table of TensorFlow
            if hasattr(old, "insert"):
                raise TypeError(f"a table that can change, {type(old).__name__}, is not copied")
            return old
        if _is_plain(old):
            new = object.__new__(type(old))
            self.memo[id(old)] = new
            self._fill(old, new)
            if hasattr(new, "stored_ids") and hasattr(new, "config"):
                self.trackers.append(new)
            return new
        return copy.deepcopy(old, self.memo)


def _is_constant(value: Any) -> bool:
    """Whether nothing can change an object, so that two layers may hold it."""
    if isinstance(value, keras.DTypePolicy):
        return True
    is_tensor = ops.is_tensor(value)
    # Arrays of JAX and TensorFlow are constant; tensors of PyTorch are not.
    return bool(is_tensor and not hasattr(value, "requires_grad"))


def _is_plain(value: Any) -> bool:
    """Whether a copy of its attributes is a copy of an object."""
    cls = type(value)
    if cls.__module__ == "builtins" or not (hasattr(value, "__dict__") or _slots(value)):
        return False
    if hasattr(value, "_obj_type"):  # Keras copies these by saving them
        return True
    is_python = getattr(cls, "__new__", None) is getattr(object, "__new__", None)
    has_own = any(
        getattr(cls, name, None) is not getattr(object, name, None)
        for name in ("__deepcopy__", "__reduce_ex__", "__reduce__", "__getstate__")
    )
    return is_python and not has_own


def _slots(value: Any) -> list[str]:
    """The attributes of an object that are set and not in its `__dict__`."""
    names: list[str] = []
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    held = [name for name in names if name not in ("__dict__", "__weakref__")]
    return [name for name in held if hasattr(value, name)]
