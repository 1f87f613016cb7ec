"""The graph of a functional model: where its symbolic tensors come from."""

from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Producer:
    """The call of a layer or operation that a symbolic tensor comes from.

    Attributes:
        operation: The layer or operation.
        call_index: The number of the call, among all calls of the operation.
        output_index: The number of the tensor, among the outputs of the call.
    """

    operation: Any
    call_index: int
    output_index: int

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The symbolic tensors that the call was given."""
        return self._node.input_tensors

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of the call."""
        return self._node.arguments.kwargs

    @property
    def _node(self) -> Any:
        return self.operation._inbound_nodes[self.call_index]


def producer(tensor: keras.KerasTensor) -> Producer:
    """The call that a symbolic tensor of a model comes from."""
    return Producer(*tensor._keras_history)


def without_calls(operation: keras.Operation) -> keras.Operation:
    """A copy of an operation on tensors, without the record of its calls.

    It shares the attributes: an operation has no state, and not always a configuration.
    """
    new = object.__new__(type(operation))
    vars(new).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[])
    return new
