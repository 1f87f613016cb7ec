"""Training on several replicas: corrects or refuses what Keras gets wrong.

Under a strategy of `tf.distribute` Keras divides the mean of the loss on each replica by the
number of replicas and sums the gradients. Penalties are divided in the same way. The result is
the mean over the whole batch if all replicas have the same number of samples.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_gbr import _checks as check
from keras_gbr.backend.tensorflow.replicas import num_replicas

_SUPPORTED = (
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
    tf.distribute.OneDeviceStrategy,
)


def has_strategy(model: Any) -> bool:
    """Whether a model runs under a strategy, of one replica or several."""
    return bool(tf.distribute.has_strategy() or model._distribute_strategy)


def with_reducible_logs(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Adds to the logs of a step the axis of length one that Keras needs on several workers."""

    @functools.wraps(step)
    def run(data: Any) -> Any:
        logs = step(data)
        replicas = num_replicas()
        if replicas == 1 or replicas == len(tf.distribute.get_strategy().extended.worker_devices):
            return logs
        return keras.tree.map_structure(lambda value: tf.expand_dims(value, 0), logs)

    return run


def local_batch(strategy: Any, iterator: Any) -> Any:
    """The first batch of an epoch, the part for the first replica of this worker.

    Keras learns shapes from the mean of the batches of all replicas. This fails on several
    workers, and if a batch does not divide evenly.
    """
    for _, _, batches in iterator:
        return keras.tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], next(batches)
        )
    return None


class _ReplicaLocalLosses(threading.local):
    """The losses of a layer: a list for each thread, and so for each replica.

    Replicas are traced in threads, which take turns when they synchronise, as in synchronised
    batch normalisation. With a single list one replica would clear or read the losses of another.
    """

    def __init__(self) -> None:
        self.items: list[Any] = []

    def extend(self, losses: Any) -> None:
        self.items.extend(losses)

    def clear(self) -> None:
        self.items.clear()

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def prepare(model: Any) -> None:
    """Refuses models that cannot run on several replicas, and gives each replica its own losses.

    Args:
        model: A model, about to train, evaluate or predict.

    Raises:
        ValueError: The strategy is not supported, or variables were created outside its scope.
    """
    strategy = model.distribute_strategy
    if has_strategy(model) and not isinstance(strategy, _SUPPORTED):
        raise check.error(
            "Models run under MirroredStrategy, MultiWorkerMirroredStrategy or "
            "OneDeviceStrategy. Keras does not support the others.",
            "strategy",
            type(strategy).__name__,
        )
    if strategy.num_replicas_in_sync == 1:
        return
    variables = [*model.variables, *model.metrics_variables]
    optimizer = getattr(model, "optimizer", None)  # none is needed to predict
    variables += optimizer.variables if optimizer else []
    foreign = [v.path for v in variables if not _is_distributed(v)]
    if foreign:
        raise check.error(
            "The variables of the model, its optimizer and its metrics must be created inside "
            "`with strategy.scope():`. Others would get different values on each replica. Build or "
            "load the model and compile it there.",
            "variables outside the scope",
            foreign[:5],
        )
    for layer in model._flatten_layers():
        if not isinstance(layer._losses, _ReplicaLocalLosses):
            vars(layer)["_losses"] = _ReplicaLocalLosses()


def _is_distributed(variable: Any) -> bool:
    return isinstance(variable.value, tf.distribute.DistributedValues)


def check_training(model: Any) -> None:
    """Refuses the settings of `compile` that train wrongly on several replicas.

    Args:
        model: A compiled model, about to train.

    Raises:
        ValueError: There are several replicas, and a setting trains wrongly on them.
    """
    if model.distribute_strategy.num_replicas_in_sync == 1:
        return
    for name, setting, reason in _REFUSED:
        value = setting(model)
        if value:
            raise check.error(f"On several replicas {reason}", name, value)


def _optimizer_setting(name: str) -> Callable[[Any], Any]:
    return lambda model: getattr(model.optimizer, name, None)


_CLIPPING = "Keras clips gradients before it sums them. Train without, or on one replica."
# The name of a setting; its value for a model, false if it is allowed; why, and the way out.
_REFUSED: list[tuple[str, Callable[[Any], Any], str]] = [
    ("clipnorm", _optimizer_setting("clipnorm"), _CLIPPING),
    ("global_clipnorm", _optimizer_setting("global_clipnorm"), _CLIPPING),
    ("clipvalue", _optimizer_setting("clipvalue"), _CLIPPING),
    (
        "gradient_accumulation_steps",
        _optimizer_setting("gradient_accumulation_steps"),
        "Keras cannot accumulate gradients. Take a larger batch, or one replica.",
    ),
    (
        "ema_overwrite_frequency",
        lambda model: model.optimizer.use_ema and model.optimizer.ema_overwrite_frequency,
        "Keras cannot overwrite the weights by their averages during training. Leave "
        "`ema_overwrite_frequency` at None: they are overwritten at the end.",
    ),
    (
        "steps_per_execution",
        lambda model: model.steps_per_execution if model.steps_per_execution > 1 else None,
        "Keras takes one step at a time. Leave `steps_per_execution` at 1.",
    ),
    (
        "jit_compile",
        lambda model: model.jit_compile,
        'TensorFlow does not compile a step with XLA. Leave `jit_compile` at "auto".',
    ),
    (
        "run_eagerly",
        lambda model: model.run_eagerly,
        "eager steps would use the same layers at the same time. Leave `run_eagerly` out, or "
        "debug on one replica.",
    ),
    (
        "optimizer",
        lambda model: (
            isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
            and type(model.optimizer).__name__
        ),
        "float16 is not safe: the loss scale looks at one replica only and lets infinities of "
        'the others into the weights. Use "mixed_bfloat16", which needs no loss scale.',
    ),
    (
        "check_numerics",
        lambda model: model._check_numerics,
        "a step cannot be stopped on all of them. Use `keras.callbacks.TerminateOnNaN`.",
    ),
]
