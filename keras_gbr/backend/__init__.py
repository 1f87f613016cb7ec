"""What differs between the backends of Keras, behind one door."""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_gbr.backend.tensorflow import (
        Trainer,
        compiled,
        is_dataset,
        normal,
        num_batches,
        num_replicas,
        replica_mean,
        require_second_derivatives,
        switch,
        vjp,
    )
else:
    raise ImportError(
        "keras_gbr runs on the TensorFlow backend of Keras so far. Set the environment "
        'variable KERAS_BACKEND to "tensorflow" before Keras is imported. '
        f"Received: backend={keras.backend.backend()!r}"
    )

__all__ = [
    "Trainer",
    "compiled",
    "is_dataset",
    "normal",
    "num_batches",
    "num_replicas",
    "replica_mean",
    "require_second_derivatives",
    "switch",
    "vjp",
]
