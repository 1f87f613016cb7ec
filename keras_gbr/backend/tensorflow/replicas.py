"""The replicas of a strategy of `tf.distribute`, from within a step."""

from typing import Any

import tensorflow as tf


def num_replicas() -> int:
    """The number of replicas that take a step together."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id() -> Any:
    """The number of this replica, from 0: a whole number or a scalar tensor."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def replica_mean(tensors: list[Any]) -> list[Any]:
    """The means of tensors over the replicas, on each of them."""
    if num_replicas() == 1:
        return tensors
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, tensors)
