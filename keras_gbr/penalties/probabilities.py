"""Class probabilities of an output."""

from typing import Any

from keras import ops

from keras_gbr.forward_pass import ForwardPass
from keras_gbr.precision import at_least_float32


def probabilities(forward: ForwardPass, output: Any) -> Any:
    """The probabilities that an output stands for.

    Args:
        forward: The forward pass that `output` belongs to.
        output: Tensor `(batch_size, ..., units)`.

    Returns:
        Tensor of the same shape: the softmax over the last axis, the sigmoid for one unit, or
        the output itself if the compiled loss says that it holds probabilities already
        (`from_logits=False`).
    """
    output = at_least_float32(output)
    if not forward.outputs_are_logits:
        return output
    return ops.sigmoid(output) if output.shape[-1] == 1 else ops.softmax(output, axis=-1)
