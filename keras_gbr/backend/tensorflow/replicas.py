"""The replicas of a strategy of `tf.distribute`, from within a step.

The functions are those of `keras_gbr.backend.contract`.
"""

from typing import Any

import tensorflow as tf


def num_replicas() -> int:
    """The number of replicas of the strategy in use."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id() -> Any:
    """The number of this replica; 0 outside of a step."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def replica_mean(tensors: list[Any]) -> list[Any]:
    """The means by an all-reduce."""
    if num_replicas() == 1:
        return tensors
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, tensors)
